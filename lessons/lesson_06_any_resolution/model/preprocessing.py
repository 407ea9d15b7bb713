"""Photographs → patches, byte for byte as the published NaFlex image processor (`Siglip2ImageProcessor`) computes them.

Each image is resized to its own grid with Pillow's bilinear filter and standardized per channel. The results are padded
or packed afterward (packing.py).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from lessons.lesson_02_clip.model.preprocessing_config import FILE, find_processor_settings
from lessons.lesson_06_any_resolution.model.patches import ImagePatches
from lessons.lesson_06_any_resolution.model.resize import budget_grid
from shared.atomic import write_atomically
from shared.images import to_upright_rgb
from shared.pretrained import Fixed, Row, Setting, Unused, build_config, read_settings, write_settings
from shared.pretrained.setting_values import integer, number

IMAGE_PROCESSOR = "Siglip2ImageProcessor"
MODEL_TYPES = ("siglip2", "siglip2_vision_model")


@dataclass(frozen=True)
class NaFlexPreprocessing:
    """Describe how photographs become patches; the defaults are those of the published checkpoints.

    patch_size      side of a patch in pixels
    max_patches     token budget per image
    resample        Pillow's filter
    rescale_factor  pixels are multiplied by it before they are standardized
    mean            of each channel, for rescaled pixels
    std             of each channel, for rescaled pixels

    Raises ValueError for a patch or a budget below 1.
    """

    patch_size: int = 16
    max_patches: int = 256
    resample: Image.Resampling = Image.Resampling.BILINEAR
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.max_patches < 1:
            raise ValueError(
                f"patch_size is {self.patch_size} and max_patches is {self.max_patches}; expected at least 1 each"
            )

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image at the size that its budget allows, as bytes.

        Every mode becomes RGB: gray values are repeated, and transparent parts are white. (The published processor
        fails on images that are not RGB, unless `do_convert_rgb` is set.) Raises ValueError as `budget_grid` does.
        """
        image = to_upright_rgb(image)
        rows, columns = budget_grid(image.height, image.width, self.patch_size, self.max_patches)
        return np.asarray(image.resize((columns * self.patch_size, rows * self.patch_size), self.resample))

    def __call__(self, images: Sequence[Image.Image]) -> list[ImagePatches]:
        """Return the patches of each image, at most `max_patches` per image. Raises as `resize` does."""
        return [self._patches(self.resize(image)) for image in images]

    def _patches(self, pixels: UInt8[np.ndarray, "height width 3"]) -> ImagePatches:
        # The published order of operations and of roundings: float64 for the product, float32 after it.
        rescaled = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        standardized = (rescaled - mean) / std
        return ImagePatches.from_image(torch.from_numpy(standardized).permute(2, 0, 1), self.patch_size)

    # ── Published settings ────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "NaFlexPreprocessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported, or of another image processor.
        """
        file, config = find_processor_settings(Path(folder), IMAGE_PROCESSOR, MODEL_TYPES)
        return build_config(cls, **read_settings(SETTINGS, config, str(file)))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the `preprocessor_config.json` that `transformers` reads."""
        settings = {"image_processor_type": IMAGE_PROCESSOR, "do_convert_rgb": True}
        settings |= write_settings(SETTINGS, asdict(self) | {"resample": int(self.resample)})
        write_atomically(Path(folder) / FILE, (json.dumps(settings, indent=2) + "\n").encode())


def _resampling(value: Any) -> Image.Resampling:
    if value is None:
        return Image.Resampling.BILINEAR  # as in the published class
    if type(value) is not int or value not in list(Image.Resampling):
        raise ValueError(f"the number of one of Pillow's filters, 0 to {max(Image.Resampling)}")
    return Image.Resampling(value)


def _channels(value: Any, *, above_zero: bool = False) -> tuple[float, ...]:
    """Accept one number for each of red, green and blue, or one for all."""
    channels = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    kinds = all(type(each) in (int, float) and abs(each) < 1e6 for each in channels)
    if len(channels) != 3 or not kinds or (above_zero and min(channels) <= 0):
        raise ValueError(f"a number{' above 0' if above_zero else ''}, or three for red, green and blue")
    return tuple(map(float, channels))


def _deviations(value: Any) -> tuple[float, ...]:
    return _channels(value, above_zero=True)


SETTINGS: list[Row] = [
    Setting("patch_size", "patch_size", 16),
    Setting("max_num_patches", "max_patches", 256, accept=integer()),
    Setting("resample", "resample", Image.Resampling.BILINEAR, accept=_resampling),
    Setting("rescale_factor", "rescale_factor", 1 / 255, accept=number(above=True)),
    Setting("image_mean", "mean", (0.5, 0.5, 0.5), accept=_channels),
    Setting("image_std", "std", (0.5, 0.5, 0.5), accept=_deviations),
    *(Fixed(name, True) for name in ("do_resize", "do_rescale", "do_normalize")),
    # Without it, the published class fails on images that are not RGB; for RGB it changes nothing.
    Unused("do_convert_rgb"),
    # Settings of every image processor that this one does not read.
    *(Unused(name) for name in ("size", "default_to_square", "crop_size", "do_center_crop", "do_pad", "pad_size")),
    *(Unused(name) for name in ("data_format", "input_data_format", "device", "return_tensors", "disable_grouping")),
    Unused("image_seq_length"),
]
