"""Score generated images by the judge, each score beside the one that real renders of the same scenes get."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from data.toybox.language import is_true
from data.toybox.scene import Scene
from data.toybox.tensors import render_tensors
from shared.evaluation.frechet import frechet_distance
from shared.judge.comparison import compare_scenes
from shared.judge.model import Judge
from shared.judge.pixels import check_images
from shared.judge.predictions import image_features, predict_scenes


class Score(NamedTuple):
    """A score of generated images, and the score of real renders: the best that a perfect generator can get."""

    generated: float
    real: float


def score_images(
    judge: Judge,
    images: Tensor,
    scenes: Sequence[Scene],
    *,
    captions: Sequence[str] | None = None,
    places: bool = True,
) -> dict[str, Score]:
    """Return the accuracies of generated images, by name as in `compare_scenes`.

    images    generated images [images, 3, size, size], uint8 from 0 to 255 or floating point from 0 to 1
    scenes    the scene that was requested for each image, with at most one object per place
    captions  the texts from which the images were generated, in the toy world's grammar. With them there is a score
              "caption": the fraction of the images whose predicted scene makes its caption true
    places    whether the request stated places; without them, objects may lie anywhere (see `compare_scenes`)

    Raises ValueError for images that the judge cannot judge, and when there is not one scene and caption per image.
    """
    check_images(images)
    _check_lengths(images, scenes=scenes, **({} if captions is None else {"captions": captions}))
    renders = render_tensors(scenes, images.shape[-1])
    generated, real = predict_scenes(judge, images), predict_scenes(judge, renders)
    pairs = {
        name: (compare_scenes(scenes, generated, places=places)[name], value)
        for name, value in compare_scenes(scenes, real, places=places).items()
    }
    if captions is not None:
        pairs["caption"] = (_fraction_true(captions, generated), _fraction_true(captions, real))
    return {name: Score(*pair) for name, pair in pairs.items()}


def _fraction_true(captions: Sequence[str], scenes: Sequence[Scene]) -> float:
    return sum(map(is_true, captions, scenes)) / len(captions)


def score_distance(judge: Judge, images: Tensor, scenes: Sequence[Scene], reference: Sequence[Scene]) -> Score:
    """Return the Fréchet distance of generated images from real renders; smaller is better.

    The distance is between the judge's features of `images` and of renders of `reference`: other scenes of the same
    distribution. `Score.real` is the distance of renders of `scenes` from the same renders of `reference`. It is above
    zero, because both sets are samples, and falls with their number.

    images     generated images [images, 3, size, size], one per scene
    scenes     the scenes that were requested
    reference  at least as many other scenes

    Raises ValueError for images that the judge cannot judge, and when there are fewer reference scenes than images.
    """
    check_images(images)
    _check_lengths(images, scenes=scenes)
    if len(reference) < len(images):
        raise ValueError(f"{len(reference)} reference scenes for {len(images)} images; expected at least as many")
    size = images.shape[-1]
    expected = image_features(judge, render_tensors(reference, size))
    generated, real = image_features(judge, images), image_features(judge, render_tensors(scenes, size))
    return Score(frechet_distance(generated, expected), frechet_distance(real, expected))


def _check_lengths(images: Tensor, **sequences: Sequence) -> None:
    for name, values in sequences.items():
        if len(values) != len(images):
            raise ValueError(f"{len(values)} {name} for {len(images)} images; expected one per image")
