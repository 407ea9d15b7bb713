"""Photographs → a padded batch, as the published image processor (`Emu3ImageProcessor`) computes it.

Each image is resized to its own size with Pillow's bicubic filter (lesson 9's `smart_resize`) and standardized per
channel. Smaller images of a batch are padded with zeros on the right and below.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_02_clip.model.preprocessing_config import FILE, MEAN, STD, find_processor_settings
from lessons.lesson_09_qwen_vl.model.sampling import smart_resize
from shared.atomic import write_atomically
from shared.images import to_upright_rgb
from shared.pretrained import Fixed, Row, Setting, Unused, build_config, read_settings, write_settings
from shared.pretrained.setting_values import number

IMAGE_PROCESSOR = "Emu3ImageProcessor"
MODEL_TYPES = ("emu3",)


class ImageBatch(NamedTuple):
    """Hold images of different sizes as one tensor.

    images  padded with zeros on the right and below
    sizes   height and width of each image without its padding
    """

    images: Float[Tensor, "images 3 height width"]
    sizes: Int[Tensor, "images 2"]


@dataclass(frozen=True)
class Emu3ImageProcessing:
    """Describe how photographs become batches; the defaults are those of the published class.

    min_pixels      least number of pixels of a resized image
    max_pixels      largest number of pixels of a resized image
    spatial_factor  sides of resized images are multiples of it
    resample        Pillow's filter
    rescale_factor  pixels are multiplied by it before they are standardized
    mean, std       of each channel, for rescaled pixels

    Raises ValueError for limits that exclude each other.
    """

    min_pixels: int = 512 * 512
    max_pixels: int = 1024 * 1024
    spatial_factor: int = 8
    resample: Image.Resampling = Image.Resampling.BICUBIC
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"at least {self.min_pixels} and at most {self.max_pixels} pixels; expected limits in this order"
            )

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a resized image. Raises ValueError as `smart_resize` does."""
        return smart_resize(height, width, self.spatial_factor, self.min_pixels, self.max_pixels)

    def __call__(self, images: Sequence[Image.Image]) -> ImageBatch:
        """Return the images as one batch. Raises ValueError for no image, and as `smart_resize` does."""
        if not images:
            raise ValueError("no image was given; expected at least one")
        tensors = [self._standardize(to_upright_rgb(image)) for image in images]
        sizes = torch.tensor([tensor.shape[1:] for tensor in tensors])
        height, width = sizes.amax(dim=0).tolist()
        padded = [F.pad(tensor, (0, width - tensor.shape[2], 0, height - tensor.shape[1])) for tensor in tensors]
        return ImageBatch(torch.stack(padded), sizes)

    def _standardize(self, image: Image.Image) -> Float[Tensor, "3 height width"]:
        height, width = self.resized_size(image.height, image.width)
        pixels = np.asarray(image.resize((width, height), self.resample))
        # The published order of operations and of roundings: float64 for the product, float32 after it.
        rescaled = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return torch.from_numpy((rescaled - mean) / std).permute(2, 0, 1)

    def to_images(self, decoded: Float[Tensor, "images 3 height width"]) -> list[Image.Image]:
        """Return decoded images as files have them: standardization is undone, and values beyond 0 to 255 are cut."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        pixels = (decoded.cpu().float() * std + mean) / self.rescale_factor
        # Without rounding, as published.
        return [Image.fromarray(each.permute(1, 2, 0).clamp(0, 255).byte().numpy()) for each in pixels]

    # ── Published settings ────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Emu3ImageProcessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported, or of another image processor.
        """
        file, config = find_processor_settings(Path(folder), IMAGE_PROCESSOR, MODEL_TYPES)
        return build_config(cls, **read_settings(SETTINGS, config, str(file)))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the `preprocessor_config.json` that `transformers` reads."""
        fields = asdict(self) | {"resample": int(self.resample)}
        settings = {"image_processor_type": IMAGE_PROCESSOR, "do_convert_rgb": True, **write_settings(SETTINGS, fields)}
        write_atomically(Path(folder) / FILE, (json.dumps(settings, indent=2) + "\n").encode())


def _resampling(value: Any) -> Image.Resampling:
    if type(value) is not int or value not in list(Image.Resampling):
        raise ValueError(f"the number of one of Pillow's filters, 0 to {max(Image.Resampling)}")
    return Image.Resampling(value)


def _channels(value: Any) -> tuple[float, ...]:
    """Accept one number for each of red, green and blue."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("three numbers, for red, green and blue")
    return tuple(number(-1e6, below=1e6)(each) for each in value)


def _std(value: Any) -> tuple[float, ...]:
    if min(_channels(value)) <= 0:
        raise ValueError("three numbers above 0, for red, green and blue")
    return _channels(value)


SETTINGS: list[Row] = [
    Setting("min_pixels", "min_pixels", 512 * 512),
    Setting("max_pixels", "max_pixels", 1024 * 1024),
    Setting("spatial_factor", "spatial_factor", 8),
    Setting("resample", "resample", Image.Resampling.BICUBIC, accept=_resampling),
    Setting("rescale_factor", "rescale_factor", 1 / 255, accept=number(above=True)),
    Setting("image_mean", "mean", MEAN, accept=_channels),
    Setting("image_std", "std", STD, accept=_std),
    *(Fixed(name, True) for name in ("do_resize", "do_rescale", "do_normalize", "do_pad")),
    # Without it, images that are not RGB fail in the published class; for RGB it changes nothing.
    Unused("do_convert_rgb"),
    # Derived from the limits in the published class, which reads only them.
    Unused("size"),
]
