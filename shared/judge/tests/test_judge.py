"""The shipped judge: its accuracy on new renders, what it says of wrong and of meaningless images, and its distance."""

import json

import pytest
import torch

from data.toybox.heldout import sample_scenes
from data.toybox.language import caption
from data.toybox.scene import COLORS, SHAPES, Scene, stream
from data.toybox.tensors import render_tensors
from shared.course.checkpoint import CHECKPOINTS_FOLDER, PROVENANCE
from shared.errors import CourseError
from shared.judge import (
    compare_scenes,
    image_features,
    load_judge,
    predict_scenes,
    pretrained,
    score_distance,
    score_images,
)

SEED = 77  # neither trained on nor measured in the provenance
SCENES = sample_scenes("test", SEED, 200, (1, 5))


def next_value(values: tuple[str, ...], value: str) -> str:
    return values[(values.index(value) + 1) % len(values)]


def with_other(attribute: str, values: tuple[str, ...]) -> list[Scene]:
    """Return SCENES with another value of one attribute for every object."""
    return [
        scene._replace(
            objects=tuple(
                each._replace(**{attribute: next_value(values, getattr(each, attribute))}) for each in scene.objects
            )
        )
        for scene in SCENES
    ]


@pytest.mark.parametrize(
    ("size", "split"), [(32, "validation"), (32, "test"), (48, "test"), (64, "test"), (96, "test")]
)
def test_renders_are_judged_right(judge, size, split):
    """With 200 scenes of about 600 objects: at most six wrong attributes and four wrong counts."""
    scenes = sample_scenes(split, SEED, 200, (1, 5))
    scores = compare_scenes(scenes, predict_scenes(judge, render_tensors(scenes, size)))
    for name in ("place", "shape", "color", "size", "texture"):
        assert scores[name] >= 0.99, (name, scores)
    assert scores["count"] >= 0.98 and scores["scene"] >= 0.95, scores


def test_the_provenance_states_the_accuracy(judge):
    record = json.loads((CHECKPOINTS_FOLDER / pretrained.NAME / PROVENANCE).read_text())
    for size in (32, 64):
        for combinations in ("seen", "unseen"):
            for name in ("place", "shape", "color", "size", "texture", "count"):
                assert record["measured"][f"{name}_{size}_{combinations}"] >= 0.99
    assert record["parents"] == {}


def test_perfect_images_score_as_renders_do_and_an_empty_scene_has_no_object(judge):
    captions = [caption(scene, "places") for scene in SCENES]
    scores = score_images(judge, render_tensors(SCENES, 32), SCENES, captions=captions)
    assert set(scores) == {"place", "shape", "color", "size", "texture", "object", "count", "scene", "caption"}
    assert all(score.generated == score.real for score in scores.values())
    assert scores["caption"] == scores["scene"]  # such a caption states everything
    assert predict_scenes(judge, render_tensors([Scene((), 4)], 32)) == [Scene((), 0)]


@pytest.mark.parametrize(("attribute", "values"), [("color", COLORS), ("shape", SHAPES)])
def test_a_wrong_attribute_lowers_its_score_and_no_other(judge, attribute, values):
    images = render_tensors(with_other(attribute, values), 32)
    scores = score_images(judge, images, SCENES, captions=[caption(scene, "places") for scene in SCENES])
    assert scores[attribute].generated <= 0.01 and scores[attribute].real >= 0.99
    assert scores["object"].generated <= 0.01 and scores["scene"].generated == scores["caption"].generated == 0
    for name in {"place", "shape", "color", "size", "texture", "count"} - {attribute}:
        assert scores[name].generated >= 0.98, name


def test_captions_without_places_accept_objects_anywhere(judge):
    """Scenes with equal objects at other places: each image shows what its caption states, not where."""
    moved = [
        scene._replace(objects=tuple(each._replace(x=127 - each.x, y=each.y) for each in scene.objects))
        for scene in SCENES
    ]
    captions = [caption(scene, "attributes") for scene in SCENES]
    images = render_tensors(moved, 32)
    scores = score_images(judge, images, SCENES, captions=captions, places=False)
    assert "place" not in scores
    assert scores["caption"].generated >= 0.95 and scores["scene"].generated >= 0.95
    assert score_images(judge, images, SCENES)["scene"].generated < 0.6


def test_relations_are_judged_from_the_predicted_centers(judge):
    pairs = [scene for scene in SCENES if len(scene.objects) > 1]
    captions = [caption(scene, "relation", stream(0, number, 9)) for number, scene in enumerate(pairs)]
    assert score_images(judge, render_tensors(pairs, 32), pairs, captions=captions)["caption"].real >= 0.95


@pytest.mark.parametrize("images", [torch.rand(20, 3, 32, 32), torch.zeros(20, 3, 64, 64), torch.ones(20, 3, 48, 48)])
def test_meaningless_images_are_judged_without_an_error(judge, images):
    scenes = predict_scenes(judge, images)
    assert len(scenes) == 20 and all(0 <= len(scene.objects) <= 9 for scene in scenes)
    scores = score_images(judge, images, SCENES[:20])
    assert scores["scene"].generated == 0 and scores["scene"].real > 0.9


def test_mild_blur_and_noise_hardly_change_the_scores(judge):
    images = render_tensors(SCENES, 32).float() / 255
    kernel = torch.tensor([0.15, 0.7, 0.15])
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurred = torch.nn.functional.conv2d(images, kernel, padding=1, groups=3)
    noisy = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for changed in (blurred.clamp(0, 1), noisy):
        scores = score_images(judge, changed, SCENES)
        assert all(score.generated >= 0.97 for name, score in scores.items() if name not in ("object", "scene"))


def test_the_distance_is_zero_for_equal_images_and_rises_with_corruption(judge):
    reference = sample_scenes("test", SEED + 1, 200, (1, 5))
    images = render_tensors(SCENES, 32).float() / 255
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    distances = [
        score_distance(judge, (images + std * noise).clamp(0, 1), SCENES, reference) for std in (0, 0.1, 0.2, 0.4)
    ]
    assert distances[0].generated == pytest.approx(distances[0].real, rel=1e-3)
    generated = [distance.generated for distance in distances]
    assert generated == sorted(generated) and generated[-1] > 3 * generated[0]
    assert len({round(distance.real, 9) for distance in distances}) == 1
    itself = score_distance(judge, render_tensors(SCENES, 32), SCENES, SCENES)
    assert itself.generated == pytest.approx(0, abs=1e-5) and itself.real == pytest.approx(0, abs=1e-5)
    fewer = [scene._replace(objects=scene.objects[:1]) for scene in SCENES]
    assert score_distance(judge, render_tensors(fewer, 32), SCENES, reference).generated > 2 * distances[0].real


def test_judging_changes_nothing_and_does_not_depend_on_the_batch(judge):
    images = render_tensors(SCENES[:30], 32)
    weights = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    together = predict_scenes(judge.train(), images)
    assert together == [scene for image in images for scene in predict_scenes(judge, image[None])]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in judge.state_dict().items())
    assert image_features(judge, images).shape == (30, judge.feature_width)
    assert predict_scenes(judge, images[:0]) == [] and len(image_features(judge, images[:0])) == 0


def test_wrong_calls_are_refused(judge, tmp_path, monkeypatch):
    images = render_tensors(SCENES[:3], 32)
    with pytest.raises(ValueError, match="2 scenes for 3 images; expected one per image"):
        score_images(judge, images, SCENES[:2])
    with pytest.raises(ValueError, match="1 captions for 3 images; expected one per image"):
        score_images(judge, images, SCENES[:3], captions=["a star"])
    with pytest.raises(ValueError, match="2 reference scenes for 3 images; expected at least as many"):
        score_distance(judge, images, SCENES[:3], SCENES[:2])
    with pytest.raises(ValueError, match="expected 0 to 1"):
        score_images(judge, images.float(), SCENES[:3])
    monkeypatch.setattr("shared.course.checkpoint.CHECKPOINTS_FOLDER", tmp_path)
    with pytest.raises(CourseError, match="make checkpoint-judge"):
        load_judge()
