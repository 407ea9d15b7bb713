"""From a photograph to the numbers that a published CLIP was trained on.

The shorter side becomes 224 pixels (bicubic), the middle square is cut out, and each channel is standardized. Each of
these can be done in several ways that look alike and give other numbers; here it is Pillow's way, as in training.
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

# Means and deviations of red, green and blue over the pictures that CLIP was trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImagePreprocessing:
    """size  the side of the square that the model takes (CLIP), or both sides to stretch to, whatever the shape (SigLIP)

    crop      whether to keep the shape and cut out the middle, or to stretch
    resample  Pillow's filter
    """

    size: int = 224
    crop: bool = True
    resample: Image.Resampling = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "ImagePreprocessing":
        """What a folder's `preprocessor_config.json` says. Raises CourseError when it is missing or asks for more."""
        file = Path(folder) / "preprocessor_config.json"
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CourseError(f"{file} cannot be read ({error}); it belongs to a published CLIP or SigLIP") from error
        size = said.get("size", 224)
        sides = (
            {size} if isinstance(size, int) else set(size.values())
        )  # a number in files of 2021, {"shortest_edge": 224} since
        crop = said.get("do_center_crop", False)
        cut = said.get("crop_size", size) if crop else size
        sides |= {cut} if isinstance(cut, int) else set(cut.values())
        off = [step for step in ("do_resize", "do_normalize", "do_rescale") if said.get(step) is False]
        if len(sides) != 1 or off or not np.isclose(said.get("rescale_factor", 1 / 255), 1 / 255):
            raise CourseError(f"{file} asks for other steps than resize to a square, and standardize: {said}")
        return cls(
            sides.pop(), crop, Image.Resampling(said.get("resample", 3)), tuple(said.get("image_mean", MEAN)),
            tuple(said.get("image_std", DEVIATION)),
        )  # fmt: skip

    def square(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """The picture as bytes, resized and cut."""
        image = image.convert("RGB")
        if not self.crop:
            return np.asarray(image.resize((self.size, self.size), self.resample))
        width, height = image.size
        shorter = min(width, height)
        # Cut off, not rounded, as in the code that trained it: one pixel shifts the whole square.
        image = image.resize((int(self.size * width / shorter), int(self.size * height / shorter)), self.resample)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def __call__(self, images: list[Image.Image]) -> Float[Tensor, "images 3 size size"]:
        """The pictures as a published model takes them."""
        bytes_ = torch.from_numpy(np.stack([self.square(image) for image in images])).permute(0, 3, 1, 2)
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (self.mean, self.deviation))
        return (bytes_.float() / 255 - mean) / deviation
