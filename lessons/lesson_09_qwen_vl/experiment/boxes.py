"""Boxes as JSON: images with a name of an object, the text of its box, and scores of generated texts."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.heldout import scene_at
from data.toybox.scene import WORLD, Scene, SceneObject
from data.toybox.tensors import IMAGE_SIZE, render_tensors
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder, vision_features
from lessons.lesson_09_qwen_vl.experiment.data import PADDING
from lessons.lesson_09_qwen_vl.experiment.reader import merge_order, read_prompt, sequence_ids
from lessons.lesson_09_qwen_vl.model import QwenVL
from lessons.lesson_09_qwen_vl.model.grounding import Box, iou, parse_boxes, scale_box
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.transformer import Sampling

UNITS = (IMAGE_SIZE, IMAGE_SIZE)
"""Largest y and x: boxes are written in pixels of the image, as by Qwen2.5-VL."""
MOST_TOKENS = 60
CANDIDATES = 300
"""Training boxes among which the blind baseline is chosen."""


class BoxQuestions(NamedTuple):
    """Images of one frame each, with the name and the box of every object; row i belongs to image i.

    prompts  the name of each image's first object, without its box
    """

    features: Float[Tensor, "images 1 patches width"]
    token_ids: Int[Tensor, "images text"]
    answer_mask: Bool[Tensor, "images text"]
    prompts: Sequence[Int[Tensor, "_"]]
    boxes: Sequence[Box]


def box_scenes(split: str, seed: int, count: int, objects: int) -> list[Scene]:
    """Return scenes of `objects` objects that all differ in color and in shape."""
    scenes: list[Scene] = []
    number = 0
    while len(scenes) < count:
        scene = scene_at(split, seed, number, (objects, objects))
        if len({each.color for each in scene.objects}) == len({each.shape for each in scene.objects}) == objects:
            scenes.append(scene)
        number += 1
    return scenes


def box_of(scene_object: SceneObject) -> Box:
    """Return the name and the box of an object, in whole pixels."""
    corners = scale_box(tuple(map(float, scene_object.box)), (WORLD, WORLD), UNITS)
    left, top, right, bottom = (round(corner) for corner in corners)
    return Box(f"{scene_object.color} {scene_object.shape}", (left, top, right, bottom))


def box_text(box: Box) -> str:
    """Return a box as one line of JSON."""
    return json.dumps({"bbox_2d": list(box.corners), "label": box.label})


def box_questions(
    tokenizer: Tokenizer, scenes: Sequence[Scene], device: str, *, use_image: bool = True
) -> BoxQuestions:
    """Return images with the names and boxes of their objects, in turns; features are zero without the image."""
    pixels = render_tensors(scenes)
    features = merge_order(vision_features(load_vision_encoder(), pixels, device))[:, None]
    rows, masks, prompts, boxes = [], [], [], []
    for number, scene in enumerate(scenes):
        turn = number % len(scene.objects)
        ordered = [box_of(each) for each in (*scene.objects[turn:], *scene.objects[:turn])]
        row: list[int] = []
        mask: list[bool] = []
        for box in ordered:
            name, text = tokenizer.encode(f"{box.label}\n"), tokenizer.encode(f"{box_text(box)}\n")
            row += name + text
            mask += [False] * len(name) + [True] * len(text)
        rows.append(row)
        masks.append(mask)
        prompts.append(torch.tensor(tokenizer.encode(f"{ordered[0].label}\n")))
        boxes.append(ordered[0])
    longest = max(map(len, rows))
    return BoxQuestions(
        features if use_image else torch.zeros_like(features),
        torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows]),
        torch.tensor([mask + [False] * (longest - len(mask)) for mask in masks]),
        prompts,
        boxes,
    )


@torch.no_grad()
def generate_texts(model: QwenVL, tokenizer: Tokenizer, questions: BoxQuestions, device: str) -> list[str]:
    """Return the text that the model writes for each image's first object, greedily, up to the end of the line."""
    model.eval()
    newline = [token for token in range(tokenizer.vocab_size) if b"\n" in tokenizer.decode_bytes([token])]
    begin = tokenizer.special_tokens[BEGIN_TOKEN]
    texts: list[str] = []
    for rows in torch.arange(len(questions.prompts)).split(64):
        prompts = []
        for row in rows.tolist():
            text = questions.prompts[row][None].to(device)
            ids = sequence_ids(1, text.shape[1], 1.0)[None].to(device)
            prompts.append(read_prompt(model, questions.features[row : row + 1].to(device), text, ids, begin))
        for tokens in model.answer(prompts, Sampling(MOST_TOKENS, stop_token_ids=newline)):
            texts.append(tokenizer.decode(tokens.tolist()).split("\n")[0])
    return texts


def box_scores(texts: Sequence[str], boxes: Sequence[Box]) -> dict[str, float]:
    """Return how often a text is a box, is valid JSON with the right label, and the mean IoU.

    parsed    fraction of the texts with exactly one box for the tolerant parser
    strict    fraction that `json.loads` reads, with the requested label
    iou       mean IoU of the first box with the true one; 0 where there is none
    iou_half  fraction with an IoU of at least 0.5
    """
    overlaps, parsed, strict = [], 0, 0
    for text, box in zip(texts, boxes, strict=True):
        read = parse_boxes(text, UNITS)
        parsed += len(read) == 1
        strict += _strict_label(text) == box.label
        overlaps.append(_overlap(read[0], box) if read else 0.0)
    count = len(boxes)
    return {
        "parsed": parsed / count,
        "strict": strict / count,
        "iou": sum(overlaps) / count,
        "iou_half": sum(overlap >= 0.5 for overlap in overlaps) / count,
    }


def blind_iou(training: Sequence[Box], boxes: Sequence[Box]) -> float:
    """Return the mean IoU of the one box that is best on training boxes: no name reveals where an object is."""
    trained = torch.tensor([box.corners for box in training], dtype=torch.float64)
    candidates = torch.cat([trained[:CANDIDATES], trained.mean(dim=0, keepdim=True)])
    best = candidates[iou(candidates, trained).mean(dim=1).argmax()]
    return iou(best[None], torch.tensor([box.corners for box in boxes], dtype=torch.float64)).mean().item()


def _overlap(one: Box, other: Box) -> float:
    corners = (torch.tensor([box.corners], dtype=torch.float64) for box in (one, other))
    return iou(*corners).item()


def _strict_label(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value.get("label") if isinstance(value, dict) else None
