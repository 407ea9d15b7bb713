"""Photographs and video frames → tiles, byte for byte as `LlavaOnevisionImageProcessor` computes them with Pillow.

A single image is resized into its pinpoint, padded with black and cut into tiles; the image resized to one tile comes
first. One of several images is padded to a square with the mean color and is one tile. Video frames are resized to one
tile without padding; the published video processor does this with torchvision, whose pixels differ slightly.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lessons.lesson_02_clip.model.preprocessing_config import FILE, MEAN, STD, find_processor_settings
from lessons.lesson_05_llava.model.anyres import fit_inside, select_resolution
from lessons.lesson_06_any_resolution.model import preprocessing as naflex
from lessons.lesson_08_onevision.model.config_mapping import MODEL_TYPE, PINPOINTS, accept_pinpoints
from lessons.lesson_08_onevision.model.pooling import Size
from shared.atomic import write_atomically
from shared.images import to_upright_rgb
from shared.pretrained import Fixed, Row, Setting, Unused, build_config, read_settings, write_settings
from shared.pretrained.setting_values import integer

IMAGE_PROCESSOR = "LlavaOnevisionImageProcessor"
Tiles = Float[Tensor, "tiles 3 tile_size tile_size"]


@dataclass(frozen=True)
class OneVisionPreprocessing:
    """Describe how photographs become tiles; the defaults are those of the published class.

    tile_size       side of a tile in pixels
    pinpoints       (height, width) sizes that a single image can be resized to
    resample        Pillow's filter
    rescale_factor  pixels are multiplied by it before they are standardized
    mean            of each channel, for rescaled pixels
    std             of each channel, for rescaled pixels

    Raises ValueError for a pinpoint that is not divisible into tiles.
    """

    tile_size: int = 384
    pinpoints: tuple[Size, ...] = PINPOINTS
    resample: Image.Resampling = Image.Resampling.BICUBIC
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        for height, width in self.pinpoints:
            if height % self.tile_size or width % self.tile_size:
                raise ValueError(
                    f"the pinpoint {height} × {width} is not divisible into tiles of {self.tile_size} pixels"
                )

    def single(self, image: Image.Image) -> Tiles:
        """Return a single image: the whole as one tile, then the tiles of its selected size in reading order.

        Every mode becomes RGB: gray values are repeated, and transparent parts are white. Raises ValueError for an
        image without area.
        """
        image = _with_pixels(image)
        height, width = select_resolution((image.height, image.width), self.pinpoints)
        inner_height, inner_width = fit_inside((image.height, image.width), (height, width))
        canvas = Image.new("RGB", (width, height))
        resized = image.resize((inner_width, inner_height), self.resample)
        canvas.paste(resized, ((width - inner_width) // 2, (height - inner_height) // 2))
        side = self.tile_size
        corners = [(left, top) for top in range(0, height, side) for left in range(0, width, side)]
        tiles = [canvas.crop((left, top, left + side, top + side)) for left, top in corners]
        return self._standardized([self._resized(image), *map(np.asarray, tiles)])

    def several(self, images: Sequence[Image.Image]) -> list[Tiles]:
        """Return each of several images as one tile, padded to a square with the mean color before it is resized.

        Raises ValueError for an image without area.
        """
        return [self._standardized([self._resized(self._padded(_with_pixels(image)))]) for image in images]

    def frames(self, frames: Sequence[Image.Image]) -> Float[Tensor, "frames 3 tile_size tile_size"]:
        """Return the frames of a video, resized without padding. Raises ValueError for a video without frames."""
        if not frames:
            raise ValueError("a video of 0 frames; expected at least one")
        return self._standardized([self._resized(_with_pixels(frame)) for frame in frames])

    def _resized(self, image: Image.Image) -> UInt8[np.ndarray, "tile_size tile_size 3"]:
        return np.asarray(image.resize((self.tile_size, self.tile_size), self.resample))

    def _padded(self, image: Image.Image) -> Image.Image:
        longest = max(image.size)
        red, green, blue = (int(255 * mean) for mean in self.mean)
        square = Image.new("RGB", (longest, longest), (red, green, blue))
        square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
        return square

    def _standardized(self, tiles: Sequence[UInt8[np.ndarray, "tile_size tile_size 3"]]) -> Tiles:
        # The published order of operations and of roundings: float64 for the product, float32 after it.
        rescaled = (np.stack(tiles).astype(np.float64) * self.rescale_factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return torch.from_numpy((rescaled - mean) / std).permute(0, 3, 1, 2).contiguous()

    # ── Published settings ────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "OneVisionPreprocessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported, or of another image processor.
        """
        file, config = find_processor_settings(Path(folder), IMAGE_PROCESSOR, (MODEL_TYPE,))
        values = read_settings(SETTINGS, config, str(file))
        del values["center_crop"]
        return build_config(cls, **values)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the `preprocessor_config.json` that `transformers` reads."""
        values = asdict(self) | {
            "tile_size": {"height": self.tile_size, "width": self.tile_size},
            "resample": int(self.resample),
            "center_crop": False,
        }
        settings = {"image_processor_type": IMAGE_PROCESSOR, "do_convert_rgb": True, **write_settings(SETTINGS, values)}
        write_atomically(Path(folder) / FILE, (json.dumps(settings, indent=2) + "\n").encode())


def _with_pixels(image: Image.Image) -> Image.Image:
    """Return an image as upright RGB. Raises ValueError for an image without area."""
    if min(image.size) < 1:
        raise ValueError(f"an image of {image.height} × {image.width} pixels; expected at least one pixel")
    return to_upright_rgb(image)


def _tile_size(value: Any) -> int:
    """Accept {"height": side, "width": side}."""
    if isinstance(value, dict):
        sides = {name: side for name, side in value.items() if side is not None}
        if set(sides) == {"height", "width"} and sides["height"] == sides["width"]:
            return integer()(sides["height"])
    raise ValueError("equal height and width")


def _no_crop(value: Any) -> bool:
    """Accept false and null."""
    if value not in (False, None):
        raise ValueError("false or null")
    return False


_NAFLEX = {row.published: row for row in naflex.SETTINGS if isinstance(row, Setting)}


def _resampling(value: Any) -> Image.Resampling:
    """Accept the number of a filter; the published class fails for null."""
    if value is None:
        raise ValueError("the number of one of Pillow's filters")
    return _NAFLEX["resample"].convert(value)


SETTINGS: list[Row] = [
    Setting("size", "tile_size", 384, accept=_tile_size),
    Setting("image_grid_pinpoints", "pinpoints", PINPOINTS, accept=accept_pinpoints),
    replace(_NAFLEX["resample"], default=Image.Resampling.BICUBIC, accept=_resampling),
    _NAFLEX["rescale_factor"],
    replace(_NAFLEX["image_mean"], default=MEAN),
    replace(_NAFLEX["image_std"], default=STD),
    *(Fixed(name, True) for name in ("do_resize", "do_rescale", "do_normalize")),
    Fixed("crop_size", None),  # it would be the size of a tile
    Setting("do_center_crop", "center_crop", False, accept=_no_crop),
    # Without do_convert_rgb, the published class fails on images that are not RGB; for RGB it changes nothing.
    # do_pad only adds empty tiles, so that images of different numbers of tiles form a batch.
    *(Unused(name) for name in ("do_convert_rgb", "do_pad", "pad_size", "default_to_square")),
    *(Unused(name) for name in ("data_format", "input_data_format", "device", "return_tensors", "disable_grouping")),
    Unused("image_seq_length"),
]
