"""Accuracies count each mistake where it belongs."""

import pytest

from data.toybox.scene import Scene, SceneObject
from shared.judge import compare_scenes

RED = SceneObject("star", "red", "small", "plain", 20, 20)
BLUE = SceneObject("moon", "blue", "large", "dotted", 64, 64)
REQUESTED = Scene((RED, BLUE), 0)
PERFECT = dict.fromkeys(("place", "shape", "color", "size", "texture", "object", "count", "scene"), 1.0)


def scores(*objects: SceneObject, places: bool = True) -> dict[str, float]:
    return compare_scenes([REQUESTED], [Scene(objects, 5)], places=places)


def test_equal_objects_are_perfect_wherever_in_their_place_they_lie():
    assert scores(RED._replace(x=30), BLUE) == PERFECT


@pytest.mark.parametrize(
    ("name", "value"), [("shape", "moon"), ("color", "pink"), ("size", "large"), ("texture", "hollow")]
)
def test_one_wrong_attribute_counts_there_and_in_the_totals(name, value):
    wrong = {name: 0.5, "object": 0.5, "scene": 0.0}
    assert scores(RED._replace(**{name: value}), BLUE) == PERFECT | wrong


def test_a_missing_object_has_no_attribute_right():
    half = dict.fromkeys(("place", "shape", "color", "size", "texture", "object"), 0.5)
    assert scores(BLUE) == half | {"count": 0.0, "scene": 0.0}
    assert set(scores().values()) == {0.0}


def test_an_additional_object_changes_count_and_scene_only():
    assert scores(RED, BLUE, RED._replace(x=110)) == PERFECT | {"count": 0.0, "scene": 0.0}


def test_an_object_at_another_place_is_wrong_if_places_were_requested():
    moved = (RED._replace(x=110), BLUE)
    assert scores(*moved)["object"] == 0.5 and scores(*moved)["count"] == 1.0
    without_place = {name: value for name, value in PERFECT.items() if name != "place"}
    assert scores(*moved, places=False) == without_place


def test_without_places_the_best_assignment_counts():
    """Each predicted object is used once; the order does not matter."""
    assert scores(BLUE, RED, places=False)["scene"] == 1.0
    assert scores(RED, RED, places=False) == {
        **dict.fromkeys(("shape", "color", "size", "texture", "object"), 0.5),
        "count": 1.0,
        "scene": 0.0,
    }
    # Giving the first object its nearest candidate would leave the second one with a moon.
    requested = Scene((RED, RED._replace(texture="dotted", x=110)), 0)
    predicted = Scene((RED._replace(texture="dotted"), BLUE._replace(size="small", texture="plain")), 0)
    result = compare_scenes([requested], [predicted], places=False)
    assert (result["object"], result["texture"], result["shape"]) == (0.5, 1.0, 0.5)


def test_fractions_are_over_all_objects_and_over_all_scenes():
    result = compare_scenes([REQUESTED, Scene((RED,), 0)], [REQUESTED, Scene((), 0)])
    assert result["color"] == pytest.approx(2 / 3) and result["scene"] == 0.5


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="2 scenes were requested and 1 predicted"):
        compare_scenes([REQUESTED] * 2, [REQUESTED])
    for empty in ([], [Scene((), 0)]):
        with pytest.raises(ValueError, match="no object was requested"):
            compare_scenes(empty, empty)
