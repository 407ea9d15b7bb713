"""Documents of three tasks over one vocabulary: caption → image, image → caption, image and questions → answers.

    draw      <begin> caption ⏎ [image]
    caption   <begin> [image] caption ⏎
    answer    <begin> [image] question answer ⏎ question answer ⏎ …

An image is a begin token, its codes and an end token. Every image is encoded once, before training.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.conversations import PURPOSE, question_turns, scene_setting
from data.toybox.heldout import sample_scenes
from data.toybox.language import caption
from data.toybox.questions import ANSWERS, question_at
from data.toybox.scene import Scene, stream
from data.toybox.tensors import render_tensors
from lessons.lesson_11_chameleon.model.toy_chameleon import NEWLINE, ToyChameleon

OBJECTS = (1, 1)
"""The least and the greatest number of objects per scene."""
TASKS = ("draw", "caption", "answer")
SETTING = scene_setting(OBJECTS)
QUESTIONS = 3
"""Most questions per training image."""
ENCODING_BATCH = 500
SPLIT_CONTENTS = {
    "train": "documents of training scenes",
    "validation": "new scenes of seen combinations",
    "test": "scenes of one object, of an unseen combination",
}
Mixture = Mapping[str, float]


class Documents(NamedTuple):
    """Documents, one per row, padded at the end.

    segments   0, and −1 for padding
    loss_mask  the tokens to predict: an image, a caption or answers, each with the token that ends it
    """

    token_ids: Int[Tensor, "rows tokens"]
    segments: Int[Tensor, "rows tokens"]
    loss_mask: Bool[Tensor, "rows tokens"]


def full_caption(scene: Scene) -> str:
    """Return the caption that names size, texture, color, shape and place."""
    return caption(scene, "places")


def scene_images(scenes: Sequence[Scene], size: int) -> Float[Tensor, "scenes 3 size size"]:
    """Return the renders of scenes, with pixels from 0 to 1."""
    return render_tensors(scenes, size).float() / 255


def encode_scenes(model: ToyChameleon, scenes: Sequence[Scene]) -> Int[Tensor, "scenes tokens"]:
    """Return the renders of scenes as token ids, with begin and end tokens."""
    size = model.image_tokenizer.config.image_size
    parts = [scenes[first : first + ENCODING_BATCH] for first in range(0, len(scenes), ENCODING_BATCH)]
    return torch.cat([model.image_token_ids(scene_images(part, size)) for part in parts])


def training_documents(model: ToyChameleon, seed: int, count: int, mixture: Mixture) -> Documents:
    """Return about `count` documents of training scenes, which hold seen combinations only.

    mixture  fraction of the documents per task; the scenes of two tasks differ
    """
    scenes = sample_scenes("train", seed, count, OBJECTS)
    images = encode_scenes(model, scenes)
    rows, first = [], 0
    for task, fraction in mixture.items():
        last = min(count, first + round(fraction * count))
        for number in range(first, last):
            rows.append(document(model, task, scenes, number, images[number], seed))
        first = last
    return pad(rows)


def held_out_documents(model: ToyChameleon, task: str, split: str, seed: int, count: int) -> Documents:
    """Return documents of one task about held-out scenes."""
    scenes = sample_scenes(split, seed, count, OBJECTS)
    images = encode_scenes(model, scenes)
    return pad([document(model, task, scenes, number, images[number], seed) for number in range(count)])


def document(
    model: ToyChameleon, task: str, scenes: Sequence[Scene], number: int, image: Int[Tensor, "tokens"], seed: int
) -> tuple[Tensor, Tensor]:
    """Return the token ids and the loss mask of a document about scene `number`.

    Raises ValueError for an unknown task.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}; choose one of {', '.join(TASKS)}")
    scene = scenes[number]
    if task == "draw":
        parts = [(model.text(f"{full_caption(scene)}{NEWLINE}", begin=True), False), (image, True)]
    elif task == "caption":
        parts = [
            (model.text("", begin=True), False),
            (image, False),
            (model.text(f"{full_caption(scene)}{NEWLINE}"), True),
        ]
    else:
        turns = question_turns(scene, scenes[number - 1], QUESTIONS, SETTING, stream(seed, number, PURPOSE))
        parts = [(model.text("", begin=True), False), (image, False)]
        for question, answer in turns:
            parts += [(model.text(question), False), (model.text(f" {answer}{NEWLINE}"), True)]
    mask = [torch.full((len(part),), is_predicted) for part, is_predicted in parts]
    return torch.cat([part for part, _ in parts]), torch.cat(mask)


def pad(rows: Sequence[tuple[Tensor, Tensor]]) -> Documents:
    """Return token ids and loss masks of different lengths as one batch. Raises ValueError when there is none."""
    if not rows:
        raise ValueError("there is no document; give a mixture whose fractions add up to more than 0")
    longest = max(len(token_ids) for token_ids, _ in rows)
    token_ids = torch.zeros(len(rows), longest, dtype=torch.long)
    segments = torch.full((len(rows), longest), -1)
    loss_mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (own_ids, own_mask) in enumerate(rows):
        token_ids[row, : len(own_ids)] = own_ids
        segments[row, : len(own_ids)] = 0
        loss_mask[row, : len(own_ids)] = own_mask
    return Documents(token_ids, segments, loss_mask)


class Questions(NamedTuple):
    """Held-out questions, one per scene, with their types and right answers."""

    scenes: list[Scene]
    texts: list[str]
    answers: list[str]
    types: list[str]


def held_out_questions(split: str, seed: int, count: int) -> Questions:
    """Return questions about scenes of one object: all types, and all answers of a type, equally often."""
    types = SETTING.question_types
    pairs = [question_at(split, seed, number, types[number % len(types)], OBJECTS) for number in range(count)]
    texts, answers = ([getattr(question, name) for _, question in pairs] for name in ("text", "answer"))
    return Questions([scene for scene, _ in pairs], texts, answers, [question.type for _, question in pairs])


def chance() -> float:
    """Return the mean over the question types of 1 / number of answers: the accuracy of a uniform guess."""
    return sum(1 / len(ANSWERS[name]) for name in SETTING.question_types) / len(SETTING.question_types)
