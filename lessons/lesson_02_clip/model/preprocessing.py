"""Preprocessing of photographs for published CLIP and SigLIP models.

CLIP resizes the shorter side to 224 pixels (bicubic), crops the central square and standardizes each channel. Each
step has variants that look alike and give other values; here it is Pillow's variant, as in training.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from shared.errors import CourseError

# Mean and standard deviation of red, green and blue over the images that CLIP was trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImagePreprocessing:
    """Describe how photographs become the input of a model.

    size      side of the square input in pixels
    crop      whether to keep the aspect ratio and crop the center (CLIP), or to stretch both sides (SigLIP)
    resample  Pillow's filter
    mean      of each channel, for pixels in [0, 1]
    std       of each channel, for pixels in [0, 1]
    """

    size: int = 224
    crop: bool = True
    resample: Image.Resampling = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ImagePreprocessing":
        """Read `preprocessor_config.json`. Raises CourseError when it is missing or has unsupported steps."""
        file = Path(folder) / "preprocessor_config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CourseError(f"{file} cannot be read ({error}); it belongs to a published CLIP or SigLIP") from error
        # A number in files of 2021, {"shortest_edge": 224} since.
        size = config.get("size", 224)
        sides = {size} if isinstance(size, int) else set(size.values())
        crop = config.get("do_center_crop", False)
        crop_size = config.get("crop_size", size) if crop else size
        sides |= {crop_size} if isinstance(crop_size, int) else set(crop_size.values())
        disabled = [step for step in ("do_resize", "do_normalize", "do_rescale") if config.get(step) is False]
        if len(sides) != 1 or disabled or not np.isclose(config.get("rescale_factor", 1 / 255), 1 / 255):
            raise CourseError(f"{file} has other steps than resizing to one square and standardizing: {config}")
        resample = Image.Resampling(config.get("resample", 3))
        return cls(
            sides.pop(), crop, resample, tuple(config.get("image_mean", MEAN)), tuple(config.get("image_std", STD))
        )

    def square(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """Return the resized and cropped image as bytes."""
        image = image.convert("RGB")
        if not self.crop:
            return np.asarray(image.resize((self.size, self.size), self.resample))
        width, height = image.size
        shorter = min(width, height)
        # Truncated, not rounded, as in the training code: one pixel would shift the whole square.
        image = image.resize((int(self.size * width / shorter), int(self.size * height / shorter)), self.resample)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def __call__(self, images: list[Image.Image]) -> Float[Tensor, "images 3 size size"]:
        """Return the images as the input of a published model."""
        pixels = torch.from_numpy(np.stack([self.square(image) for image in images])).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std
