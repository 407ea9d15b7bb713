"""Photographs → patches, byte for byte as the published image processor (`Qwen2VLImageProcessor`) computes them.

Each image is resized to its own size with Pillow's bicubic filter (`smart_resize`), standardized per channel, and cut
into patches in merge order. The three generations have the same processor with other settings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from lessons.lesson_02_clip.model.preprocessing_config import FILE, MEAN, STD, find_processor_settings
from lessons.lesson_09_qwen_vl.model.patches import VisualInput
from lessons.lesson_09_qwen_vl.model.sampling import smart_resize
from shared.atomic import write_atomically
from shared.images import to_upright_rgb
from shared.pretrained import Fixed, Row, Setting, Unused, build_config, read_settings, write_settings
from shared.pretrained.setting_values import integer, number, optional

IMAGE_PROCESSOR = "Qwen2VLImageProcessor"
MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@dataclass(frozen=True)
class QwenImageProcessing:
    """Describe how photographs become patches; the defaults are those of the published class.

    patch_size        side of a patch in pixels
    merge_size        side of the square of patches of one token
    frames_per_patch  how often a still image is repeated in each patch
    min_pixels        least number of pixels of a resized image
    max_pixels        largest number of pixels of a resized image
    resample          Pillow's filter
    rescale_factor    pixels are multiplied by it before they are standardized
    mean, std         of each channel, for rescaled pixels

    Raises ValueError for limits that exclude each other.
    """

    patch_size: int = 14
    merge_size: int = 2
    frames_per_patch: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
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
        """Return the height and width of a resized image, the units of Qwen2.5-VL's boxes. Raises ValueError."""
        return smart_resize(height, width, self.patch_size * self.merge_size, self.min_pixels, self.max_pixels)

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        """Return the image at its size, as bytes. Raises as `smart_resize` does.

        Every mode becomes RGB: gray values are repeated, and transparent parts are white.
        """
        image = to_upright_rgb(image)
        height, width = self.resized_size(image.height, image.width)
        return np.asarray(image.resize((width, height), self.resample))

    def __call__(self, images: Sequence[Image.Image]) -> VisualInput:
        """Return the patches of the images. Raises ValueError for no image, and as `resize` does."""
        if not images:
            raise ValueError("no image was given; expected at least one")
        frames = [self._standardize(self.resize(image))[None] for image in images]
        return VisualInput.from_frames(
            frames, self.patch_size, frames_per_patch=self.frames_per_patch, merge_size=self.merge_size
        )

    def _standardize(self, pixels: UInt8[np.ndarray, "height width 3"]) -> torch.Tensor:
        # The published order of operations and of roundings: float64 for the product, float32 after it.
        rescaled = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return torch.from_numpy((rescaled - mean) / std).permute(2, 0, 1)

    # ── Published settings ────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "QwenImageProcessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported, or of another image processor.
        """
        file, config = find_processor_settings(Path(folder), IMAGE_PROCESSOR, MODEL_TYPES)
        fields = read_settings(SETTINGS, config, str(file))
        size = fields.pop("size")
        limits = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        for name, edge in limits.items():
            # A limit beside `size` wins over the one in it.
            fields[name] = fields[name] or size[edge]
        return build_config(cls, **fields)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the `preprocessor_config.json` that `transformers` reads."""
        size = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        fields = asdict(self) | {"resample": int(self.resample), "size": size}
        settings = {"image_processor_type": IMAGE_PROCESSOR, "do_convert_rgb": True, **write_settings(SETTINGS, fields)}
        write_atomically(Path(folder) / FILE, (json.dumps(settings, indent=2) + "\n").encode())


DEFAULT_SIZE = {"shortest_edge": QwenImageProcessing.min_pixels, "longest_edge": QwenImageProcessing.max_pixels}


def _size(value: Any) -> Mapping[str, int]:
    """Accept the least and the largest number of pixels, under names that stood for edges in other processors."""
    if not isinstance(value, dict) or not DEFAULT_SIZE.keys() <= value.keys():
        raise ValueError("an object with shortest_edge and longest_edge, in pixels of the whole image")
    return {name: integer()(value[name]) for name in DEFAULT_SIZE}


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
    Setting("patch_size", "patch_size", 14),
    Setting("merge_size", "merge_size", 2),
    Setting("temporal_patch_size", "frames_per_patch", 2),
    Setting("size", "size", DEFAULT_SIZE, accept=_size),
    Setting("min_pixels", "min_pixels", None, accept=optional(integer())),
    Setting("max_pixels", "max_pixels", None, accept=optional(integer())),
    Setting("resample", "resample", Image.Resampling.BICUBIC, accept=_resampling),
    Setting("rescale_factor", "rescale_factor", 1 / 255, accept=number(above=True)),
    Setting("image_mean", "mean", MEAN, accept=_channels),
    Setting("image_std", "std", STD, accept=_std),
    *(Fixed(name, True) for name in ("do_resize", "do_rescale", "do_normalize")),
    # Without it, images that are not RGB fail in the published class; for RGB it changes nothing.
    Unused("do_convert_rgb"),
    # Settings of every image processor that this one does not read.
    *(Unused(name) for name in ("default_to_square", "crop_size", "do_center_crop", "do_pad", "pad_size")),
    *(Unused(name) for name in ("data_format", "input_data_format", "device", "return_tensors", "disable_grouping")),
    Unused("image_seq_length"),
]
