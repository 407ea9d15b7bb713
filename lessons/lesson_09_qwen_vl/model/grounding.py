"""Grounding in words: boxes as text, a parser that reads any text, intersection over union, and detection F1.

A box is (left, top, right, bottom). Each generation of Qwen-VL has its own text and units:

    Qwen2-VL    <|box_start|>(x1,y1),(x2,y2)<|box_end|>, in thousandths of the sides (arXiv:2409.12191, section 2.2)
    Qwen2.5-VL  JSON with "bbox_2d", in pixels of the resized image (arXiv:2502.13923, section 2.2)
    Qwen3-VL    the same JSON, in thousandths of the sides (arXiv:2511.21631, section 3)
"""

import json
import re
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_09_qwen_vl.model.config import Generation

Size = tuple[int, int]
"""Height and width in pixels."""
Corners = tuple[float, float, float, float]
RELATIVE_UNITS = 1000


class Box(NamedTuple):
    """A named box: left, top, right, bottom."""

    label: str
    corners: Corners


# ── Units ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def box_units(generation: Generation, resized: Size) -> Size:
    """Return the largest y and x of a generation's units: of the resized image, or 1000."""
    return resized if generation == "2.5" else (RELATIVE_UNITS, RELATIVE_UNITS)


def scale_box(corners: Corners, from_units: Size, to_units: Size) -> Corners:
    """Convert a box from one pair of (y, x) units to another."""
    # exercise 9.10: units of boxes
    vertical, horizontal = (new / old for new, old in zip(to_units, from_units, strict=True))
    left, top, right, bottom = corners
    return left * horizontal, top * vertical, right * horizontal, bottom * vertical
    # end exercise


def scale_boxes(boxes: Float[Tensor, "boxes 4"], from_units: Size, to_units: Size) -> Float[Tensor, "boxes 4"]:
    """Convert boxes from one pair of (y, x) units to another."""
    scaled = [scale_box(tuple(box), from_units, to_units) for box in boxes.tolist()]
    return torch.tensor(scaled, dtype=boxes.dtype).reshape(-1, 4)


# ── Text ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def format_boxes(boxes: Sequence[Box], image: Size, resized: Size, generation: Generation) -> str:
    """Return boxes in pixels of the original image as the text that a generation is trained to write."""
    units = box_units(generation, resized)
    rounded = [(box.label, [round(value) for value in scale_box(box.corners, image, units)]) for box in boxes]
    if generation == "2":
        return "".join(
            f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
            for label, (x1, y1, x2, y2) in rounded
        )
    lines = [json.dumps({"bbox_2d": corners, "label": label}, ensure_ascii=False) for label, corners in rounded]
    return "```json\n[\n\t" + ",\n\t".join(lines) + "\n]\n```"


NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
STRING = r'"(?:[^"\\\n]|\\.)*"'
OBJECT = re.compile(rf'\{{(?:[^{{}}"]|{STRING}?)*\}}?', re.S)
"""An object without objects inside it; the output may be cut before its end, and a string ends with its line."""
CORNERS = re.compile(
    rf'"bbox_2d"\s*:\s*[\[(]\s*({NUMBER})\s*,\s*({NUMBER})\s*,\s*({NUMBER})\s*,\s*({NUMBER})\s*,?\s*[\])]'
)
LABEL = re.compile(rf'"label"\s*:\s*({STRING})', re.S)
TAGGED = re.compile(
    r"(?:<\|object_ref_start\|>([^<]*)<\|object_ref_end\|>\s*)?<\|box_start\|>"
    rf"\s*\(\s*({NUMBER})\s*,\s*({NUMBER})\s*\)\s*,\s*\(\s*({NUMBER})\s*,\s*({NUMBER})\s*\)"
)


def parse_boxes(text: str, units: Size) -> list[Box]:
    """Return the boxes in the text of a model, in the order of the text; never raises for any text.

    Objects are read one by one, so that a cut or malformed one does not affect the others. Code fences, other text,
    trailing commas and missing brackets are ignored. Reversed corners are exchanged, and corners beyond the image are
    moved to its border. A box without four finite numbers or without area is left out.

    units  largest y and x that a box can have (`box_units`)
    """
    boxes = []
    for label, values in _raw_boxes(text):
        corners = _valid_corners([float(value) for value in values], units)
        if corners is not None:
            boxes.append(Box(label, corners))
    return boxes


def _raw_boxes(text: str) -> Iterator[tuple[str, Sequence[str]]]:
    for match in OBJECT.finditer(text):
        corners, label = CORNERS.search(match[0]), LABEL.search(match[0])
        if corners:
            yield "" if label is None else _decode(label[1]), corners.groups()
    for match in TAGGED.finditer(text):
        yield (match[1] or "").strip(), match.groups()[1:]


def _decode(string: str) -> str:
    """Return the value of a JSON string; an invalid one as it stands, without its quotation marks."""
    try:
        return json.loads(string)
    except ValueError:
        return string[1:-1]


def _valid_corners(values: Sequence[float], units: Size) -> Corners | None:
    # exercise 9.11: repair a box
    if not all(map(isfinite, values)):
        return None
    horizontal, vertical = (
        [min(max(value, 0.0), float(limit)) for value in pair] for pair, limit in _pairs(values, units)
    )
    if horizontal[0] == horizontal[1] or vertical[0] == vertical[1]:
        return None
    return min(horizontal), min(vertical), max(horizontal), max(vertical)
    # end exercise


def _pairs(values: Sequence[float], units: Size) -> tuple[tuple[Sequence[float], int], tuple[Sequence[float], int]]:
    """Return the two x values with their largest value, and the two y values with theirs."""
    return (values[0::2], units[1]), (values[1::2], units[0])


def parsed_corners(text: str, units: Size) -> Float[Tensor, "boxes 4"]:
    """Return the boxes of `parse_boxes` without their labels."""
    return torch.tensor([box.corners for box in parse_boxes(text, units)], dtype=torch.float64).reshape(-1, 4)


# ── Scores ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def iou(boxes: Float[Tensor, "boxes 4"], others: Float[Tensor, "others 4"]) -> Float[Tensor, "boxes others"]:
    """Return the intersection over union of every pair of boxes; 0 for boxes without area."""
    # exercise 9.12: intersection over union
    start = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    end = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = (end - start).clamp(min=0).prod(dim=-1)
    area, other_area = ((each[:, 2:] - each[:, :2]).prod(dim=-1) for each in (boxes, others))
    union = area[:, None] + other_area[None] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)
    # end exercise


class DetectionScore(NamedTuple):
    """Precision, recall and F1 of predicted boxes, and the mean IoU of those that match."""

    precision: float
    recall: float
    f1: float
    mean_iou: float


def detection_score(
    predicted: Sequence[Sequence[Box]], expected: Sequence[Sequence[Box]], threshold: float = 0.5
) -> DetectionScore:
    """Compare the predicted boxes of some images with the expected ones.

    Pairs of one label are matched greedily, largest IoU first, each box once; a match needs an IoU of `threshold`.
    Without any box on both sides, precision, recall and F1 are 1.

    Raises ValueError for different numbers of images.
    """
    matches: list[float] = []
    for one, other in zip(predicted, expected, strict=True):
        matches += match_boxes(one, other, threshold)
    total, real = sum(map(len, predicted)), sum(map(len, expected))
    precision, recall = (len(matches) / count if count else float(not real + total) for count in (total, real))
    f1 = 2 * len(matches) / (total + real) if total + real else 1.0
    return DetectionScore(precision, recall, f1, sum(matches) / len(matches) if matches else 0.0)


def match_boxes(predicted: Sequence[Box], expected: Sequence[Box], threshold: float) -> list[float]:
    """Return the IoU of each matched pair of one image."""
    if not predicted or not expected:
        return []
    overlaps = iou(
        *(torch.tensor([box.corners for box in boxes], dtype=torch.float64) for boxes in (predicted, expected))
    )
    pairs = [
        (float(overlaps[i, j]), i, j)
        for i, one in enumerate(predicted)
        for j, other in enumerate(expected)
        if one.label == other.label and overlaps[i, j] >= threshold
    ]
    matches, used, used_expected = [], set(), set()
    for overlap, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if i not in used and j not in used_expected:
            matches.append(overlap)
            used.add(i)
            used_expected.add(j)
    return matches
