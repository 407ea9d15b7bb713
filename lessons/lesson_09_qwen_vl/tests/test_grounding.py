"""Boxes as text in each generation's units, the parser on any text, and scores."""

import json
import math
import random
import time

import pytest
import torch

from lessons.lesson_09_qwen_vl.model.config import GENERATIONS
from lessons.lesson_09_qwen_vl.model.grounding import (
    Box,
    box_units,
    detection_score,
    format_boxes,
    iou,
    parse_boxes,
    scale_box,
)

IMAGE, RESIZED = (480, 640), (476, 644)
BOXES = [Box("red circle", (64.0, 48.0, 320.0, 240.0)), Box('a "quoted" }{ ball', (0.0, 100.0, 640.0, 480.0))]
UNITS = (100, 200)


def test_each_generation_has_its_text_and_units():
    one = BOXES[:1]
    assert format_boxes(one, IMAGE, RESIZED, "2") == (
        "<|object_ref_start|>red circle<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    )
    for generation, corners in (("2.5", [64, 48, 322, 238]), ("3", [100, 100, 500, 500])):
        text = format_boxes(one, IMAGE, RESIZED, generation)
        content = json.loads(text.removeprefix("```json").removesuffix("```"))
        assert content == [{"bbox_2d": corners, "label": "red circle"}]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_written_boxes_are_read_again(generation):
    units = box_units(generation, RESIZED)
    read = parse_boxes(format_boxes(BOXES, IMAGE, RESIZED, generation), units)
    assert [box.label for box in read] == [box.label for box in BOXES]
    for box, expected in zip(read, BOXES, strict=True):
        corners = scale_box(box.corners, units, IMAGE)
        # Coordinates are rounded to whole units.
        assert all(abs(one - other) <= 0.7 for one, other in zip(corners, expected.corners, strict=True))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a"}', ["a"]),
        ('Sure! ```json\n[{"label": "a", "bbox_2d": [1, 2, 3, 4],},]\n``` Done.', ["a"]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7', ["a"]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "lab', ["a", ""]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "cut in the wo', [""]),
        ('{"bbox_2d": [NaN, 2, 3, 4], "label": "a"} {"bbox_2d": [1, 2, 3, 4], "label": "b"}', ["b"]),
        ('{"bbox_2d": [Infinity, 2, 3, 4]}', []),
        ('{"bbox_2d": [1, 2, 3]} {"bbox_2d": [1, 2, 3, 4, 5]} {"bbox_2d": "1, 2, 3, 4"}', []),
        ('{"bbox_2d": [[1, 2], [3, 4]]} {"bbox_2d": null} {"bbox_2d": {}}', []),
        ('{"bbox_2d": [1, 2, 3, 4], "label": 7}', [""]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "\\x"}', ["\\x"]),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "\\u00e9"}', ["é"]),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", [""]),
        ("<|object_ref_start|>a<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(1,", ["a"]),
        ('{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}', [""]),
        ("{{{{[[[[", []),
        ("", []),
    ],
)
def test_boxes_in_malformed_text(text, labels):
    boxes = parse_boxes(text, UNITS)
    assert [box.label for box in boxes] == labels
    assert all(box.corners in ((1, 2, 3, 4), (5, 6, 7, 8)) for box in boxes)


def test_numbers_of_any_spelling():
    for text in ("[1, 2, 3, 4]", "[ 1.0,2.,3e0 , +4 ]", "(1, 2, 3, 4)", "[1,\n2,\n3,\n4,]"):
        assert parse_boxes('{"bbox_2d": ' + text + "}", UNITS)[0].corners == (1, 2, 3, 4)
    assert parse_boxes('{"bbox_2d": [-.5, 2, 3, 4]}', UNITS)[0].corners == (0, 2, 3, 4)
    for text in ("1" * 5000, "1e999", "-1e999"):
        assert parse_boxes(f'{{"bbox_2d": [1, 2, {text}, 4]}}', UNITS) == []
    assert parse_boxes('{"bbox_2d": [١, 2, 3, 4]}', UNITS) == []


def test_no_text_raises_and_boxes_are_always_valid():
    generator = random.Random(0)
    valid = format_boxes(BOXES * 3, IMAGE, RESIZED, "2.5") + format_boxes(BOXES, IMAGE, RESIZED, "2")
    pieces = [
        *'{}[]",:\\()-.\n ',
        "bbox_2d",
        '"label"',
        '"bbox_2d": [',
        "<|box_start|>",
        "NaN",
        "1e9",
        "7",
        "\ud800",
        "é",
    ]
    count = 0
    for _ in range(3000):
        text = list(valid)
        for _ in range(generator.randint(1, 12)):
            start = generator.randrange(len(text))
            text[start : start + generator.randint(0, 9)] = [generator.choice(pieces)] * generator.randint(0, 3)
        for box in parse_boxes("".join(text), UNITS):
            left, top, right, bottom = box.corners
            assert 0 <= left < right <= 200 and 0 <= top < bottom <= 100
            assert isinstance(box.label, str) and all(map(math.isfinite, box.corners))
            count += 1
    assert count > 3000


@pytest.mark.parametrize("piece", ['{"', '"', '\\"', "{", '{"a', '{"bbox_2d": [1', "<|object_ref_start|>", '"\\', "1"])
def test_long_malformed_text_takes_linear_time(piece):
    start = time.process_time()
    for prefix in ("", '{"label": "', '{"bbox_2d": ['):
        parse_boxes(prefix + piece * (200_000 // len(piece)), UNITS)
    assert time.process_time() - start < 5


# ── Scores ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def boxes(*corners, label="a"):
    return [Box(label, tuple(map(float, each))) for each in corners]


def test_matched_boxes_count_once():
    expected = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    predicted = boxes((0, 0, 10, 9), (0, 0, 10, 10), (50, 50, 60, 60))
    score = detection_score([predicted], [expected])
    assert score == pytest.approx((1 / 3, 1 / 2, 2 / 5, 1.0))
    assert detection_score([boxes((0, 0, 10, 10), label="b")], [expected]).f1 == 0
    assert detection_score([predicted, []], [expected, expected]).recall == 1 / 4


def test_the_threshold_is_included():
    one, other = boxes((0, 0, 10, 10)), boxes((0, 0, 10, 5))
    assert detection_score([one], [other], 0.5) == (1, 1, 1, 0.5)
    assert detection_score([one], [other], 0.51) == (0, 0, 0, 0)


def test_images_without_boxes():
    assert detection_score([[]], [[]]) == (1, 1, 1, 0)
    assert detection_score([[]], [boxes((0, 0, 1, 1))]) == (0, 0, 0, 0)
    assert detection_score([boxes((0, 0, 1, 1))], [[]]) == (0, 0, 0, 0)
    with pytest.raises(ValueError):
        detection_score([[], []], [[]])
    assert iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
