"""Preprocessing of photographs for published CLIP and SigLIP models.

CLIP resizes the shorter side to 224 pixels (bicubic), crops the central square and standardizes each channel. Each
step has variants that look alike and give other values; here it is Pillow's variant, as in training.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lessons.lesson_02_clip.model.preprocessing_config import MEAN, STD, read_image_processor
from shared.images import to_upright_rgb


@dataclass(frozen=True)
class ImagePreprocessing:
    """Describe how photographs become the input of a model.

    size      side of the square input in pixels
    crop      whether resizing keeps the aspect ratio, so that the center is cropped (CLIP), or stretches both sides
              (SigLIP)
    resample  Pillow's filter
    mean      of each channel, for pixels in [0, 1]
    std       of each channel, for pixels in [0, 1]
    resized   length of the shorter side after resizing with `crop`, of both sides else, if it is not `size`; the center
              is cropped to `size`, and a smaller image gets black borders
    pad       whether borders in the mean color make the image square before it is resized (LLaVA)
    """

    size: int = 224
    crop: bool = True
    resample: Image.Resampling = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resized: int | None = None
    pad: bool = False

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ImagePreprocessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported.
        """
        return cls(**read_image_processor(folder))

    def square(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """Return the resized and cropped image as bytes; transparent parts are white."""
        image = to_upright_rgb(image)
        if self.pad:
            image = self._padded(image)
        side = self.resized or self.size
        # Truncated, not rounded, as in the training code: one pixel would shift the whole square.
        shorter = min(image.size)
        width, height = (int(side * length / shorter) if self.crop else side for length in image.size)
        image = image.resize((width, height), self.resample)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def _padded(self, image: Image.Image) -> Image.Image:
        side = max(image.size)
        red, green, blue = (int(255 * mean) for mean in self.mean)
        square = Image.new("RGB", (side, side), (red, green, blue))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def __call__(self, images: list[Image.Image]) -> Float[Tensor, "images 3 size size"]:
        """Return the images as the input of a published model."""
        pixels = torch.from_numpy(np.stack([self.square(image) for image in images])).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std
