"""Labels per place hold every object of a scene, and perfect logits give the scene back."""

import pytest
import torch

from data.toybox.scene import PLACES, SIZES, Scene, SceneObject, make_scene
from shared.judge.labels import PlaceLabels, label_scenes, scenes_from_logits
from shared.judge.model import ATTRIBUTES, PlaceLogits

SCENES = [make_scene(3, number, objects=(1, 6)) for number in range(100)]


def perfect_logits(labels: PlaceLabels) -> PlaceLogits:
    """Return logits that are largest at the labels; at places without an object they are arbitrary."""
    attributes = {
        name: torch.nn.functional.one_hot(labels.attributes[name].clamp(min=0), len(values)).float()
        for name, values in ATTRIBUTES.items()
    }
    return PlaceLogits(labels.presence - 0.5, attributes, labels.center)


def test_perfect_logits_give_every_scene_back():
    assert scenes_from_logits(perfect_logits(label_scenes(SCENES))) == [
        scene._replace(background=0) for scene in SCENES
    ]


def test_a_label_stands_at_its_place():
    scene = Scene((SceneObject("star", "blue", "small", "dotted", 64, 20),), 3)
    labels = label_scenes([scene])
    assert labels.presence.tolist() == [[0, 1, 0, 0, 0, 0, 0, 0, 0]]
    for name, values in ATTRIBUTES.items():
        assert values[labels.attributes[name][0, 1]] == getattr(scene.objects[0], name)
        assert (labels.attributes[name][0] >= 0).tolist() == [place == "top" for place in PLACES]
    assert labels.center[0, 1].tolist() == pytest.approx([0, (20 - 64 / 3) / (64 / 3)])


@pytest.mark.parametrize("offset", [-50.0, 50.0])
def test_a_center_never_leaves_its_place(offset):
    labels = label_scenes(SCENES)
    logits = perfect_logits(labels)._replace(center=torch.full_like(labels.center, offset))
    for scene, predicted in zip(SCENES, scenes_from_logits(logits), strict=True):
        assert [each.place for each in predicted.objects] == [each.place for each in scene.objects]


def test_two_objects_at_one_place_are_refused():
    one = SceneObject("star", "blue", SIZES[0], "plain", 20, 20)
    with pytest.raises(ValueError, match="scene 1 has two objects at the place 'top left'"):
        label_scenes([Scene((one,), 0), Scene((one, one._replace(x=22)), 0)])


def test_no_presence_gives_an_empty_scene():
    logits = perfect_logits(label_scenes(SCENES[:1]))
    assert scenes_from_logits(logits._replace(presence=torch.full((1, 9), -1.0))) == [Scene((), 0)]
