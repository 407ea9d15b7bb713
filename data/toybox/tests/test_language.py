"""Captions are true, parse back to what they describe, and vary."""

from collections import Counter
from itertools import product

import pytest

from data.toybox.heldout import scene_at
from data.toybox.language import (
    ATTRIBUTES,
    LEVELS,
    Caption,
    Description,
    caption,
    describe,
    instruction,
    is_true,
    parse,
    parse_phrase,
    phrase,
    refer,
    words,
)
from data.toybox.questions import ANSWERS, QUESTION_TYPES, question_at, vocabulary
from data.toybox.scene import (
    COLORS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    SceneObject,
    make_scene,
    stream,
)

SCENE = Scene(
    (
        SceneObject("circle", "red", "small", "striped", 20, 20),
        SceneObject("cross", "orange", "large", "plain", 64, 24),
        SceneObject("circle", "red", "small", "striped", 20, 100),
    ),
    0,
)


def test_each_level_says_what_it_should():
    captions = [caption(SCENE, level) for level in LEVELS[:4]]
    assert captions == [
        "two circles and a cross",
        "two red circles and an orange cross",
        "two small striped red circles and a large plain orange cross",
        "a small striped red circle at the top left, a large plain orange cross at the top "
        "and a small striped red circle at the bottom left",
    ]
    related = {caption(SCENE, "relation", stream(0, number)) for number in range(200)}
    assert "a large plain orange cross right of a small striped red circle" in related
    assert "here we see a small striped red circle below a large plain orange cross" in related
    assert caption(Scene(SCENE.objects[1:2], 0), "relation", stream(0, 0)).endswith("a large plain orange cross")


def test_captions_are_true_of_their_scene_and_rarely_of_another():
    scenes = [make_scene(0, number, objects=(1, 6)) for number in range(400)]
    for number, (scene, other) in enumerate(zip(scenes, scenes[1:] + scenes[:1], strict=True)):
        for level in LEVELS:
            text = caption(scene, level, stream(0, number, 9))
            assert is_true(text, scene), text
            if level == "places":
                assert not is_true(text, other), text


def test_a_caption_that_says_one_object_wrong_is_false():
    text = caption(SCENE, "places")
    for wrong in ("blue cross", "small plain orange", "striped orange", "at the bottom and", "orange star"):
        right = {"blue cross": "orange cross", "small plain orange": "large plain orange"}
        right |= {
            "striped orange": "plain orange",
            "at the bottom and": "at the top and",
            "orange star": "orange cross",
        }
        assert right[wrong] in text
        assert not is_true(text.replace(right[wrong], wrong), SCENE)
    assert is_true("two circles and a cross", SCENE) and is_true("three objects", SCENE)
    assert not is_true("a circle and a cross", SCENE), "one circle is left out"
    assert not is_true("three circles and a cross", SCENE)
    assert not is_true("two circles and a red object", SCENE), "the cross is left out"
    assert not is_true("two circles and two objects", SCENE)
    assert not is_true("two circles and two red objects", SCENE), (
        "two phrases mention the same object, the cross is missing"
    )
    assert not is_true("a cross left of a circle", SCENE) and is_true("a circle left of a cross", SCENE)
    assert not is_true("what a lovely image", SCENE)


def test_captions_are_read_back_as_they_were_meant():
    for number in range(300):
        scene, rng = make_scene(1, number, objects=(1, 6)), stream(1, number, 9)
        places = parse(caption(scene, "places", rng))
        assert places == Caption(
            tuple(describe(scene_object, (*ATTRIBUTES, "place")) for scene_object in scene.objects)
        )
        kinds = parse(caption(scene, "attributes", rng)).phrases
        assert sorted(
            description._replace(count=1) for description in kinds for _ in range(description.count)
        ) == sorted(describe(scene_object, ATTRIBUTES) for scene_object in scene.objects)


def test_every_phrase_there_can_be_is_unambiguous():
    parts = product((None, *SIZES), (None, *TEXTURES), (None, *COLORS), (None, *SHAPES), (None, *PLACES), (1, 2, 6))
    descriptions = [Description(*part) for part in parts]
    texts = {phrase(description): description for description in descriptions}
    assert len(texts) == len(descriptions) > 36_000
    for text, description in list(texts.items())[::7]:
        assert parse_phrase(text) == description


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red circle",
        "a circle red",
        "an red circle",
        "two circle",
        "a circles",
        "a crosss",
        "a red red circle",
        "a dotted small circle",
        "one circle",
        "a red circle at top",
        "seven circles",
        "A red circle",
        "a red circle ",
    ],
)
def test_text_outside_the_grammar_is_refused(text):
    with pytest.raises(ValueError, match="is no phrase such as"):
        parse_phrase(text)


def test_there_are_a_hundred_thousand_captions_and_more():
    """Pairs of objects as the "relation" level puts them: counted, each read back, each from a scene that can be."""
    kinds = [
        describe(SceneObject(shape, color, size, texture, 0, 0), ATTRIBUTES)
        for shape, color, size, texture in product(SHAPES, COLORS, SIZES, TEXTURES)
    ]
    phrases = {phrase(kind) for kind in kinds}
    assert len(phrases) == 512 and 512 * 512 * len(RELATIONS) > 100_000
    for number, name in enumerate(RELATIONS):
        a, b = kinds[37 * number], kinds[(101 * number + 5) % 512]
        assert parse(f"{phrase(a)} {name} {phrase(b)}") == Caption((a, b), name)
    # And scenes really draw from so many: of n captions out of N equally likely ones, about n² / 2N pairs are equal.
    number_of = Counter(caption(scene_at("train", 0, number, (2, 5)), "attributes") for number in range(5000))
    equal_pairs = sum(count * (count - 1) // 2 for count in number_of.values())
    assert equal_pairs < 5000**2 / (2 * 100_000)


def test_a_reference_fits_its_object_and_no_other():
    lengths = set()
    for number in range(300):
        scene, rng = make_scene(2, number, objects=(1, 6)), stream(2, number, 9)
        for scene_object in scene.objects:
            description = refer(scene, scene_object, rng)
            assert [description.fits(other) for other in scene.objects].count(True) == 1 and description.fits(
                scene_object
            )
            lengths.add(sum(value is not None for value in description[:5]))
            hidden = refer(scene, scene_object, rng, excluded=("color", "place"))
            assert hidden is None or (hidden.color is None and hidden.place is None and hidden.fits(scene_object))
    assert lengths == {1, 2, 3, 4, 5}
    assert refer(SCENE, SCENE.objects[0], stream(0, 0), excluded=("place",)) is None, "its twin fits too"
    assert refer(SCENE, SCENE.objects[0], stream(0, 0)).place == "top left"


def test_an_instruction_has_one_target():
    related = 0
    for number in range(600):
        scene, rng = make_scene(3, number, objects=(1, 6)), stream(3, number, 9)
        text, target = instruction(scene, rng)
        verb, _, rest = text.partition(" the ")
        assert verb in ("point to", "touch", "find", "click on")
        for name in RELATIONS:
            if f" {name} the " in rest:
                related += 1
                first, second = (parse_phrase(_article(part)) for part in rest.split(f" {name} the "))
                (landmark,) = (scene_object for scene_object in scene.objects if second.fits(scene_object))
                axis = 0 if name in ("left of", "right of") else 1
                sign = -1 if name in ("left of", "above") else 1
                fitting = [
                    index
                    for index, scene_object in enumerate(scene.objects)
                    if first.fits(scene_object) and sign * (scene_object[4 + axis] - landmark[4 + axis]) > 0
                ]
                break
        else:
            fitting = [
                index
                for index, scene_object in enumerate(scene.objects)
                if parse_phrase(_article(rest)).fits(scene_object)
            ]
        assert fitting == [target], (text, scene)
    assert related > 60


def _article(text: str) -> str:
    return ("an " if text[0] in "aeiou" else "a ") + text


def test_the_vocabulary_holds_every_word():
    words_of_the_world = set(vocabulary())
    assert len(words_of_the_world) < 100
    for number in range(300):
        scene, rng = make_scene(4, number, objects=(1, 6)), stream(4, number, 9)
        texts = [caption(scene, level, rng) for level in LEVELS] + [instruction(scene, rng).text]
        question = question_at("test", 4, number)[1]
        texts += [question.text, question.answer]
        assert (
            not {word for text in texts for word in text.replace(",", "").replace("?", "").split()} - words_of_the_world
        )
    assert all(
        word in words_of_the_world for kind in QUESTION_TYPES for answer in ANSWERS[kind] for word in answer.split()
    )


def test_a_wrong_level_or_a_missing_stream_is_named():
    with pytest.raises(ValueError, match="no caption level 'long': choose one of shapes"):
        caption(SCENE, "long")
    with pytest.raises(ValueError, match="pass rng"):
        caption(SCENE, "relation")
    assert words(Description(shape="cross", count=2)) == "crosses"
