"""Identities of the mechanism: largest ids, text with three equal ids, windows, boxes, reference against PyTorch."""

from random import Random

import torch
from torch import Tensor

from lessons.lesson_09_qwen_vl import reference
from lessons.lesson_09_qwen_vl.experiment.reader import sequence_ids
from lessons.lesson_09_qwen_vl.model import VisionConfig, VisionEncoder, VisualInput, largest_id, visual_ids
from lessons.lesson_09_qwen_vl.model.grounding import Box, box_units, format_boxes, parse_boxes, scale_box
from lessons.lesson_09_qwen_vl.model.positions import mrope_angles, pair_axes, sequential_ids
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_torch
from shared.transformer import Rotary
from shared.transformer.rotary import rotate

GRIDS, BOXES = 200, 100


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return numbers that must be 0, up to rounding; only the seed is used.

    id_mismatches         grids whose largest id is not max(T, H, W) − 1, or whose 1-D ids do not end at T·H·W − 1
    text_difference       between the angles of text in M-RoPE and in 1-D rotary embedding
    shift_difference      between logits of a sequence and of the same with all ids shifted
    window_difference     between an encoder's tokens of two windows, and of each window as an image of its own
    box_error             of boxes written and read again, in units of the text
    reference_difference  between rotations of the pure-Python and the PyTorch version
    """
    torch.manual_seed(context.seed)
    random = Random(context.seed)
    return {
        "id_mismatches": float(id_mismatches(random)),
        "text_difference": text_difference(),
        "shift_difference": shift_difference(),
        "window_difference": window_difference(),
        "box_error": box_error(random),
        "reference_difference": reference_difference(random),
    } | id_growth()


def id_mismatches(random: Random) -> int:
    """Return the number of random grids whose largest ids differ from the formulas."""
    wrong = 0
    for _ in range(GRIDS):
        frames, rows, columns = (random.randint(1, 24) for _ in range(3))
        largest = int(visual_ids(frames, rows, columns).max())
        expected = max(frames, rows, columns) - 1
        tokens = frames * rows * columns
        wrong += not largest == expected == largest_id(frames, rows, columns)
        wrong += int(sequential_ids(tokens).max()) != tokens - 1
    return wrong


def id_growth() -> dict[str, list]:
    """Return the largest ids of clips of 4 × 4 tokens per frame, by the number of frames: M-RoPE and one axis."""
    frames = [2**power for power in range(8)]
    mrope = [int(sequence_ids(each, 1, 1.0).max()) for each in frames]
    return {
        "mrope_ids": [frames, mrope],
        "one_axis_ids": [frames, [int(sequence_ids(each, 1, None).max()) for each in frames]],
    }


def text_difference() -> float:
    """Return the largest difference between M-RoPE angles of text and ordinary rotary angles."""
    rotary = Rotary(32)
    ids = sequential_ids(50)[None]
    return max(
        max_abs_difference(
            mrope_angles(ids, rotary.frequencies(), pair_axes(sections, interleaved)), rotary(ids[..., :1])
        )
        for sections, interleaved in (((4, 6, 6), False), ((6, 5, 5), True))
    )


def shift_difference() -> float:
    """Return the change of rotated scores when a constant is added to all ids: only differences of ids count."""
    queries, keys = torch.randn(2, 1, 1, 40, 32, dtype=torch.float64)
    frequencies = Rotary(32).frequencies().double()
    ids = sequence_ids(2, 7, 1.0)[None]

    def scores(ids: Tensor) -> Tensor:
        angles = mrope_angles(ids, frequencies, pair_axes((4, 6, 6), False))
        return rotate(queries, angles) @ rotate(keys, angles).mT

    return max_abs_difference(scores(ids), scores(ids + torch.tensor([11, 5, 2])))


@torch.no_grad()
def window_difference() -> float:
    """Return the largest difference between two windows of an image and the same windows as images of their own."""
    config = VisionConfig(2, 16, 2, 32, 8, patch_size=4, frames_per_patch=1, window_size=16)
    encoder = VisionEncoder(config).double()
    image = torch.randn(1, 3, 16, 32, dtype=torch.float64)
    joint = encoder(VisualInput.from_frames([image], 4, frames_per_patch=1)).tokens.reshape(2, 4, -1)
    halves = [
        encoder(VisualInput.from_frames([half], 4, frames_per_patch=1)).tokens.reshape(2, 2, -1)
        for half in image.split(16, dim=3)
    ]
    return max_abs_difference(joint, torch.cat(halves, dim=1))


def box_error(random: Random) -> float:
    """Return the largest error of boxes in the text of each generation, beyond the rounding to whole units."""
    image, resized, worst = (480, 640), (336, 448), 0.0
    for generation in ("2", "2.5", "3"):
        units = box_units(generation, resized)  # type: ignore[arg-type]
        for _ in range(BOXES):
            left, top = random.uniform(0, 500), random.uniform(0, 400)
            box = Box("red circle", (left, top, left + random.uniform(9, 140), top + random.uniform(9, 80)))
            text = format_boxes([box], image, resized, generation)  # type: ignore[arg-type]
            (read,) = parse_boxes(text, units)
            expected = [float(round(value)) for value in scale_box(box.corners, image, units)]
            worst = max(worst, *(abs(a - b) for a, b in zip(read.corners, expected, strict=True)))
    return worst


def reference_difference(random: Random) -> float:
    """Return the largest difference between rotated vectors of the pure-Python and the PyTorch version."""
    sections, base = (3, 2, 3), 100.0
    ids = reference.mrope_ids([2, reference.Grid(3, 2, 2, 1.5), 3])
    values = [random.gauss(0, 1) for _ in range(len(ids) * 16)]
    plain = reference.Tensor(values, (1, 1, len(ids), 16))
    pairs = torch.arange(8, dtype=torch.float64)
    angles = mrope_angles(torch.tensor(ids)[None], base ** (-pairs / 8), pair_axes(sections, False))
    expected = rotate(torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1, 16), angles)
    return max_abs_difference(to_torch(reference.rotate(plain, ids, sections, base)), expected)
