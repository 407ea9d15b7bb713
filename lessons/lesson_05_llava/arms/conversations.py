"""What the model learns from and is asked: pictures of the toy world, described, or talked about in questions and answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.heldout import scene_at
from data.toybox.language import caption
from data.toybox.questions import ANSWERS, KINDS, ask, question_at
from data.toybox.scene import Scene, pick, stream
from lessons.lesson_02_clip.arms.pairs import pixels_of, standardise
from lessons.lesson_05_llava.model import IMAGE, Llava, batch_of, conversation
from shared.tokenizers import ChatTemplate, Turn

DESCRIBE = "describe the picture."
LEVEL = "places"
PURPOSE = 220  # of this lesson's own random numbers


@dataclass(frozen=True)
class Conversations:
    """To be learned from: row i of each belongs to picture i.

    features  what the eye makes of the pictures; nothing at all, [pictures, 0, width], where nobody looks
    answers   which tokens are the assistant's own
    """

    features: Float[Tensor, "pictures patches width"]
    tokens: Int[Tensor, "pictures text"]
    answers: Bool[Tensor, "pictures text"]
    segments: Int[Tensor, "pictures text"]


@dataclass(frozen=True)
class Asked:
    """To be answered: a question about each picture, its kind and its right answer."""

    features: Float[Tensor, "pictures patches width"]
    prompts: Sequence[Int[Tensor, "_"]]
    questions: Sequence[str]
    kinds: Sequence[str]
    answers: Sequence[str]
    scenes: Sequence[Scene]


def described(
    model: Llava,
    template: ChatTemplate,
    seed: int,
    count: int,
    things: tuple[int, int],
    *,
    image: bool,
    device: str,
) -> Conversations:
    """What the first stage learns from: each scene with all that can be said of it."""
    scenes = [scene_at("train", seed, number, things) for number in range(count)]
    said = [[Turn("user", DESCRIBE), Turn("assistant", caption(scene, LEVEL))] for scene in scenes]
    return _conversations(model, template, scenes, said, image=image, device=device)


def interviewed(
    model: Llava, template: ChatTemplate, seed: int, count: int, turns: int, things: tuple[int, int], *, image: bool,
    device: str,
) -> Conversations:  # fmt: skip
    """What the second stage learns from: scenes, each with several questions of all kinds, or with a description.

    (One picture in `turns` is described. A look at a picture costs as much as several questions, so it is asked several.)
    """
    scenes = [scene_at("train", seed + 1, number, things) for number in range(count)]
    said = []
    for number, scene in enumerate(scenes):
        if number % turns == 0:
            said.append([Turn("user", DESCRIBE), Turn("assistant", caption(scene, LEVEL))])
        else:
            said.append(interview(scene, scenes[number - 1], turns, seed, number))
    return _conversations(model, template, scenes, said, image=image, device=device)


def interview(scene: Scene, other: Scene, turns: int, seed: int, number: int) -> list[Turn]:
    """Questions about a scene with their answers. Kind and answer are drawn first, each as often as the next; then a
    question that has this answer here, where there is one."""
    rng, said = stream(seed, number, PURPOSE), []
    while len(said) < 2 * turns:
        kind = pick(rng, KINDS)
        question = ask(scene, kind, pick(rng, ANSWERS[kind]), rng, other.things)
        if question:
            said += [Turn("user", question.text), Turn("assistant", question.answer)]
    return said


def _conversations(
    model: Llava, template: ChatTemplate, scenes: Sequence[Scene], said: Sequence[list[Turn]], *, image: bool, device: str
) -> Conversations:  # fmt: skip
    features = seen(model, scenes, image=image, device=device)
    places = [features.shape[1]] if image else []
    begun = [[Turn("user", f"{IMAGE}\n{turns[0].text}"), *turns[1:]] if image else turns for turns in said]
    return Conversations(features, *batch_of([template.encode(turns, image_tokens=places) for turns in begun]))


@torch.no_grad()
def seen(model: Llava, scenes: Sequence[Scene], *, image: bool, device: str) -> Float[Tensor, "pictures patches width"]:
    """What the eye makes of each scene, looked at once, for it never learns; nothing without an image."""
    if not image:
        return torch.zeros(len(scenes), 0, model.projector.first.in_features)
    some = pixels_of(scenes).split(256)
    return torch.cat([model.image_features(standardise(pixels.to(device))).cpu() for pixels in some])


def asked(
    model: Llava, template: ChatTemplate, split: str, seed: int, count: int, things: tuple[int, int], *, image: bool,
    device: str,
) -> Asked:  # fmt: skip
    """Questions of all kinds in equal parts, each answer as often as the next, about new scenes of a split."""
    drawn = [question_at(split, seed, number, KINDS[number % len(KINDS)], things) for number in range(count)]
    questions = [question for _, question in drawn]
    return _asked(
        model, template, [scene for scene, _ in drawn], [question.text for question in questions],
        [question.kind for question in questions], [question.answer for question in questions], image=image, device=device,
    )  # fmt: skip


def to_be_described(
    model: Llava, template: ChatTemplate, split: str, seed: int, count: int, things: tuple[int, int], *, image: bool,
    device: str,
) -> Asked:  # fmt: skip
    """New scenes of a split, to be described."""
    scenes = [scene_at(split, seed, number, things) for number in range(count)]
    texts = [caption(scene, LEVEL) for scene in scenes]
    return _asked(eye, template, scenes, [DESCRIBE] * count, ["description"] * count, texts, image=image, device=device)


def _asked(
    model: Llava, template: ChatTemplate, scenes: Sequence[Scene], questions: Sequence[str], kinds: Sequence[str],
    answers: Sequence[str], *, image: bool, device: str,
) -> Asked:  # fmt: skip
    features = seen(model, scenes, image=image, device=device)
    places = [features.shape[1]] if image else []
    prompts = [torch.tensor(conversation(template, question, image_tokens=places).numbers) for question in questions]
    return Asked(features, prompts, questions, kinds, answers, scenes)
