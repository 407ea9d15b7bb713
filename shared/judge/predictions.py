"""Apply the judge to images: the scenes that it predicts, and its features."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from data.toybox.scene import Scene
from shared.judge.labels import scenes_from_logits
from shared.judge.model import Judge
from shared.judge.pixels import check_images, to_judge_pixels

BATCH_SIZE = 100


def predict_scenes(judge: Judge, images: Tensor) -> list[Scene]:
    """Return the scene that the judge predicts for each image; every image gives one, noise as well.

    images  [images, 3, size, size], uint8 from 0 to 255 or floating point from 0 to 1, at least 32 × 32

    Raises ValueError for other images.
    """
    with torch.inference_mode():
        return [scene for pixels in _batches(judge, images) for scene in scenes_from_logits(judge(pixels))]


def image_features(judge: Judge, images: Tensor) -> Float[Tensor, "images width"]:
    """Return the judge's features of each image, for `shared.evaluation.frechet_distance`.

    Raises ValueError for images that `predict_scenes` refuses.
    """
    with torch.inference_mode():
        features = [judge.features(pixels).cpu() for pixels in _batches(judge, images)]
    return torch.cat(features) if features else torch.zeros(0, judge.feature_width)


def _batches(judge: Judge, images: Tensor) -> Iterator[Tensor]:
    """Yield the pixels of a few images at a time on the judge's device, the judge being in evaluation mode."""
    check_images(images)
    judge.eval()
    device = next(judge.parameters()).device
    for batch in images.split(BATCH_SIZE) if len(images) else ():
        yield to_judge_pixels(batch.to(device))
