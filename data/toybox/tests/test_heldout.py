"""Held-out combinations occur in no training scene or sentence and in every test scene."""

from collections import Counter

import pytest

from data.toybox.heldout import (
    ALL_PAIRS,
    HELD_OUT,
    SEEN_PAIRS,
    SPLITS,
    VERSION,
    is_held_out,
    mentions_held_out,
    scene_at,
)
from data.toybox.language import LEVELS, Description, caption, instruction, phrase, words
from data.toybox.questions import question_at
from data.toybox.scene import COLORS, SHAPES, make_scene, stream


def test_each_color_and_each_shape_is_held_out_once():
    assert len(HELD_OUT) == 8 and ("purple", "triangle") in HELD_OUT
    assert {color for color, _ in HELD_OUT} == set(COLORS) and {shape for _, shape in HELD_OUT} == set(SHAPES)
    assert set(SEEN_PAIRS) | HELD_OUT == set(ALL_PAIRS) and len(SEEN_PAIRS) == 56
    assert VERSION


def sentences(split: str, number: int) -> list[str]:
    scene, rng = scene_at(split, 0, number, (1, 6)), stream(0, number, 9)
    texts = [caption(scene, level, rng) for level in LEVELS]
    question = question_at(split, 0, number)[1]
    return [*texts, instruction(scene, rng).text, question.text]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_scene_or_sentence_to_train_on_holds_one(split):
    for number in range(3000):
        assert not is_held_out(scene_at(split, 0, number, (1, 6)))
    for number in range(1000):
        for text in sentences(split, number):
            assert not mentions_held_out(text), text


def test_every_test_scene_holds_one_and_its_caption_says_so():
    counts = Counter()
    for number in range(2000):
        scene = scene_at("test", 0, number, (1, 6))
        assert is_held_out(scene)
        assert mentions_held_out(caption(scene, "colors")) and mentions_held_out(caption(scene, "places"))
        counts.update(
            pair for scene_object in scene.objects if (pair := (scene_object.color, scene_object.shape)) in HELD_OUT
        )
    assert set(counts) == HELD_OUT and min(counts.values()) > 150
    assert sum(mentions_held_out(text) for number in range(200) for text in sentences("test", number)) > 600


def test_each_color_and_shape_is_frequent_in_training():
    objects = [scene_object for number in range(2000) for scene_object in scene_at("train", 0, number).objects]
    pairs = Counter((scene_object.color, scene_object.shape) for scene_object in objects)
    assert set(pairs) == set(SEEN_PAIRS) and min(pairs.values()) > len(objects) / 56 / 2


def test_the_splits_share_no_scene():
    scenes = {split: {scene_at(split, 0, number) for number in range(2000)} for split in SPLITS}
    assert not scenes["train"] & scenes["validation"] and not scenes["train"] & scenes["test"]


def test_without_the_list_scenes_would_hold_them():
    """The two checks above can fail: a scene drawn from all combinations often holds one."""
    scenes = [make_scene(0, number) for number in range(300)]
    assert sum(map(is_held_out, scenes)) > 60
    assert sum(mentions_held_out(caption(scene, "attributes")) for scene in scenes) == sum(map(is_held_out, scenes))


@pytest.mark.parametrize(
    "text",
    [
        "a purple triangle",
        "two small dotted purple triangles at the top",
        "Is there a Purple  Triangle?",
        "no purple triangles anywhere",
        "the purple, striped triangle",
        "the purple and large triangle",
        "the triangle is purple",
        "is the triangle purple?",
        "triangles that are small and purple",
        "the triangles are not purple",
        "a triangle in purple",
        "a red circle and a yellow cross",
        "two yellow crosses",
        "orange stars",
    ],
)
def test_texts_that_mention_one(text):
    assert mentions_held_out(text)


@pytest.mark.parametrize(
    "text",
    [
        "a purple circle and a triangle",
        "a purple circle left of a red triangle",
        "a triangle, a purple circle and a star",
        "is the triangle above the purple object?",
        "the purple object nearest to the triangle",
        "what color is the triangle?",
        "a yellow star and an orange cross",
        "purple triangular dreams",
        "there are more purple objects than triangles",
        "",
    ],
)
def test_texts_that_mention_none(text):
    assert not mentions_held_out(text)


def test_every_combination_is_recognized_in_every_form():
    for color, shape in ALL_PAIRS:
        for count in (1, 2):
            description = Description("small", "dotted", color, shape, "top left", count)
            assert mentions_held_out(phrase(description)) == ((color, shape) in HELD_OUT)
            assert mentions_held_out("the " + words(description)) == ((color, shape) in HELD_OUT)


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'dev': choose one of train, validation, test"):
        scene_at("dev", 0, 0)
