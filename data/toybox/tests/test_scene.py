"""Scenes: pure functions of seed and number, equal everywhere, nothing hidden, every relation as defined."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.toybox.scene import (
    BACKGROUNDS,
    CLEARLY,
    COLORS,
    GAP,
    MAX_OBJECTS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    WORLD,
    Scene,
    SceneObject,
    distance,
    holds,
    make_scene,
    nearest,
    offset,
    pick,
    same,
    stream,
)

ROOT = Path(__file__).parents[3]

# One hash over scenes, images and sentences of all types. When the world changes on purpose, this changes:
# then give data.toybox.heldout.VERSION a new number, so that checkpoints of the old world count as stale.
GOLDEN = "8f177bddb5f97b7f42361e062c7b9d05352d363ec9325f2247fb235078d9ab89"
GOLDEN_PROGRAM = """
import hashlib
from data.toybox.heldout import SPLITS, VERSION, scene_at
from data.toybox.language import LEVELS, caption, instruction
from data.toybox.questions import QUESTION_TYPES, question_at
from data.toybox.raster import rasterize
from data.toybox.scene import stream
digest = hashlib.sha256(VERSION.encode())
for split in SPLITS:
    for number in range(60):
        scene = scene_at(split, 7, number, (1, 6))
        rng = stream(7, number, 200)
        digest.update(repr((tuple(map(tuple, scene.objects)), scene.background)).encode())
        digest.update(repr([caption(scene, level, rng) for level in LEVELS]).encode())
        digest.update(repr(tuple(instruction(scene, rng))).encode())
        digest.update(repr(tuple(question_at(split, 7, number)[1])).encode())
        if number < 6:
            digest.update(rasterize(scene, 32))
    digest.update(repr([tuple(question_at(split, 7, 0, kind)[1]) for kind in QUESTION_TYPES]).encode())
digest.update(rasterize(scene, 96))
print(digest.hexdigest())
"""


def run(program: str, hash_seed: str) -> str:
    """Run a program in a bare Python: no site-packages, another order of sets."""
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-S", "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_world_is_equal_everywhere_with_nothing_installed(hash_seed):
    assert run(GOLDEN_PROGRAM, hash_seed) == GOLDEN


def test_a_scene_is_a_pure_function_of_seed_and_number():
    scenes = [make_scene(5, number) for number in range(200)]
    assert [make_scene(5, number) for number in reversed(range(200))] == scenes[::-1]
    assert len(set(scenes)) == 200
    assert not set(scenes) & {make_scene(6, number) for number in range(200)}
    assert not set(scenes) & {make_scene(5, number, purpose=1) for number in range(200)}


def test_neighboring_seeds_and_numbers_share_no_stream():
    firsts = {
        stream(seed, number, purpose).random() for seed in range(9) for number in range(9) for purpose in range(9)
    }
    assert len(firsts) == 9**3
    assert stream(1, 0).random() != stream(0, 1).random()


def test_nothing_is_hidden_and_everything_is_inside():
    for number in range(1000):
        objects = make_scene(0, number, objects=(1, MAX_OBJECTS)).objects
        boxes = [scene_object.box for scene_object in objects]
        for index, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0 and top >= 0 and right <= WORLD and bottom <= WORLD
            for other_left, other_top, other_right, other_bottom in boxes[:index]:
                apart = max(left - other_right, other_left - right, top - other_bottom, other_top - bottom)
                assert apart >= GAP


def test_each_object_has_its_own_place_in_reading_order():
    for number in range(800):
        objects = make_scene(1, number, objects=(1, MAX_OBJECTS)).objects
        places = [PLACES.index(scene_object.place) for scene_object in objects]
        assert places == sorted(set(places)), "reading order, no place twice"
        for scene_object in objects:
            for position in (scene_object.x, scene_object.y):
                assert min(abs(3 * position - WORLD), abs(3 * position - 2 * WORLD)) >= 6, (
                    "near a border between thirds"
                )


def test_places_are_where_they_are_called():
    for row, vertical in enumerate(("top", "", "bottom")):
        for column, horizontal in enumerate(("left", "", "right")):
            scene_object = SceneObject("star", "red", "small", "plain", 21 + 43 * column, 21 + 43 * row)
            assert scene_object.place == (f"{vertical} {horizontal}".strip() or "middle")


def test_every_value_and_every_count_is_frequent():
    scenes = [make_scene(2, number, objects=(1, 6)) for number in range(2000)]
    counts = Counter(len(scene.objects) for scene in scenes)
    assert sorted(counts) == [1, 2, 3, 4, 5, 6] and min(counts.values()) > 250
    objects = [scene_object for scene in scenes for scene_object in scene.objects]
    for attribute, values in (("shape", SHAPES), ("color", COLORS), ("texture", TEXTURES), ("place", PLACES)):
        counts = Counter(getattr(scene_object, attribute) for scene_object in objects)
        assert set(counts) == set(values)
        assert all(0.8 < counts[value] * len(values) / len(objects) < 1.2 for value in values), counts
    assert 0.2 < sum(scene_object.size == "large" for scene_object in objects) / len(objects) < 0.5
    assert {scene.background for scene in scenes} == set(range(BACKGROUNDS))


def test_pairs_that_are_forbidden_or_required_are_respected():
    forbidden = {(color, shape) for color in COLORS[:7] for shape in SHAPES[:7]}
    required = [("red", "star"), ("blue", "moon")]
    for number in range(300):
        pairs = [
            (scene_object.color, scene_object.shape)
            for scene_object in make_scene(3, number, forbidden=forbidden).objects
        ]
        assert not set(pairs) & forbidden
        pairs = [
            (scene_object.color, scene_object.shape)
            for scene_object in make_scene(3, number, required=required).objects
        ]
        assert set(pairs) & set(required)


def test_the_required_object_may_be_anywhere_in_reading_order():
    required = [("red", "star")]
    positions = Counter()
    for number in range(600):
        scene = make_scene(4, number, objects=(3, 3), required=required)
        positions[[(scene_object.color, scene_object.shape) for scene_object in scene.objects].index(required[0])] += 1
    assert all(positions[index] > 150 for index in range(3)), positions


def scene_object(x: int, y: int) -> SceneObject:
    return SceneObject("star", "red", "small", "plain", x, y)


def test_relations_are_as_seen():
    a, b = scene_object(20, 90), scene_object(20 + CLEARLY, 90 - CLEARLY)
    assert [relation for relation in RELATIONS if holds(a, relation, b)] == ["left of", "below"]
    assert [relation for relation in RELATIONS if holds(b, relation, a)] == ["right of", "above"]
    near = scene_object(20 + CLEARLY - 1, 90)
    assert not any(holds(a, relation, near) or holds(near, relation, a) for relation in RELATIONS)
    assert offset(a, "left of", near) == CLEARLY - 1 == -offset(a, "right of", near)
    assert (
        offset(scene_object(0, 5), "above", scene_object(0, 9))
        == 4
        == offset(scene_object(0, 9), "below", scene_object(0, 5))
    )


def test_nearest_is_clear_or_none():
    middle, left, right = scene_object(64, 64), scene_object(34, 64), scene_object(104, 64)
    assert nearest((middle, left, right), middle) is left
    assert nearest((left, middle), middle) is left
    assert nearest((middle,), middle) is None
    assert nearest((middle, left, scene_object(64, 100)), middle) is None, "36 is less than a quarter more than 30"
    assert distance(left, right) == 70**2


def test_same_compares_one_attribute():
    a, b = SceneObject("star", "red", "small", "plain", 20, 20), SceneObject("star", "blue", "small", "dotted", 20, 100)
    shared = ("shape", "color", "size", "texture", "place")
    assert [attribute for attribute in shared if same(a, b, attribute)] == ["shape", "size"]


def test_pick_reaches_every_option_equally():
    rng = stream(0, 0)
    counts = Counter(pick(rng, "abc") for _ in range(3000))
    assert all(900 < counts[letter] < 1100 for letter in "abc")


@pytest.mark.parametrize("objects", [(0, 3), (3, 2), (1, MAX_OBJECTS + 1)])
def test_a_number_of_objects_that_cannot_be_is_refused(objects):
    with pytest.raises(ValueError, match=r"expected \(least, most\)"):
        make_scene(0, 0, objects=objects)


@pytest.mark.parametrize(("seed", "number", "purpose"), [(-1, 0, 0), (0, -1, 0), (0, 2**64, 0), (0, 0, 256)])
def test_a_stream_that_would_repeat_another_is_refused(seed, number, purpose):
    with pytest.raises(ValueError, match="expected seed ≥ 0"):
        stream(seed, number, purpose)


def test_a_scene_is_hashable_and_plain():
    scene = make_scene(0, 0)
    assert isinstance(hash(scene), int) and Scene(*scene) == scene
    assert {scene_object.size for scene_object in scene.objects} <= set(SIZES)
    assert len(hashlib.sha256(repr(scene).encode()).hexdigest()) == 64
