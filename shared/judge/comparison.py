"""Compare predicted scenes with the scenes that were requested: accuracy per attribute, objects, count, scene."""

from collections.abc import Iterator, Sequence

from data.toybox.scene import Scene, SceneObject
from shared.judge.model import ATTRIBUTES

Match = tuple[SceneObject, SceneObject | None]


def compare_scenes(requested: Sequence[Scene], predicted: Sequence[Scene], *, places: bool = True) -> dict[str, float]:
    """Return the accuracy of predicted scenes.

    place                       fraction of the requested objects with any object predicted at their place
    shape color size texture    … with this attribute predicted right; without an object at the place it is wrong
    object                      … with the place and all four attributes right
    count                       fraction of the scenes with the requested number of objects
    scene                       … with the requested number, and all of them right

    places  whether places were requested. If not, objects are matched to predicted ones so that as many attributes as
            possible are right, wherever they lie, and there is no entry "place". Chance is higher then.

    Raises ValueError when the numbers of scenes differ, or no object was requested.
    """
    if len(requested) != len(predicted):
        raise ValueError(
            f"{len(requested)} scenes were requested and {len(predicted)} predicted; expected one for each"
        )
    match_objects = _match_by_place if places else _match_by_attributes
    matches = [list(match_objects(*pair)) for pair in zip(requested, predicted, strict=True)]
    objects = [match for scene_matches in matches for match in scene_matches]
    if not objects:
        raise ValueError("no object was requested; expected scenes with at least one object in all")
    scores = {"place": _mean([predicted_object is not None for _, predicted_object in objects])} if places else {}
    scores |= {name: _mean([_is_equal(match, name) for match in objects]) for name in ATTRIBUTES}
    scores["object"] = _mean([_is_right(match) for match in objects])
    equal_counts = [len(a.objects) == len(b.objects) for a, b in zip(requested, predicted, strict=True)]
    scores["count"] = _mean(equal_counts)
    all_right = [all(map(_is_right, scene_matches)) for scene_matches in matches]
    scores["scene"] = _mean([equal and right for equal, right in zip(equal_counts, all_right, strict=True)])
    return scores


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _is_equal(match: Match, attribute: str) -> bool:
    requested, predicted = match
    return predicted is not None and getattr(predicted, attribute) == getattr(requested, attribute)


def _is_right(match: Match) -> bool:
    return all(_is_equal(match, name) for name in ATTRIBUTES)


def _match_by_place(requested: Scene, predicted: Scene) -> Iterator[Match]:
    at_place = {scene_object.place: scene_object for scene_object in predicted.objects}
    for scene_object in requested.objects:
        yield scene_object, at_place.get(scene_object.place)


def _match_by_attributes(requested: Scene, predicted: Scene) -> list[Match]:
    """Return the assignment with the most equal attributes, found by dynamic programming over sets of objects."""
    # For each set of used predicted objects: the best assignment so far of the requested objects to them.
    best: dict[frozenset[int], tuple[int, list[Match]]] = {frozenset(): (0, [])}
    for scene_object in requested.objects:
        following: dict[frozenset[int], tuple[int, list[Match]]] = {}
        for used, (score, matches) in best.items():
            options: list[tuple[frozenset[int], int, SceneObject | None]] = [(used, score, None)]
            for index, candidate in enumerate(predicted.objects):
                if index not in used:
                    gain = sum(_is_equal((scene_object, candidate), name) for name in ATTRIBUTES)
                    options.append((used | {index}, score + gain, candidate))
            for key, total, partner in options:
                if key not in following or total > following[key][0]:
                    following[key] = (total, [*matches, (scene_object, partner)])
        best = following
    return max(best.values(), key=lambda entry: entry[0])[1]
