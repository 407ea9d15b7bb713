"""Photographs → tiles, byte for byte as the published image processor (`GotOcr2ImageProcessor`) computes them.

Each image is resized with Pillow's bicubic filter to its grid of tiles (tiling.py), cut, and standardized per channel.
The thumbnail, the image resized to one tile, comes last.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from lessons.lesson_02_clip.model.preprocessing_config import FILE, MEAN, STD, find_processor_settings
from lessons.lesson_09_qwen_vl.model import image_processing as qwen
from lessons.lesson_10_internvl.model.config_mapping import MODEL_TYPE
from lessons.lesson_10_internvl.model.tiling import Size, select_grid
from shared.atomic import write_atomically
from shared.images import to_upright_rgb
from shared.pretrained import Fixed, Row, Setting, Unused, build_config, read_settings, write_settings
from shared.pretrained.setting_values import integer

IMAGE_PROCESSOR = "GotOcr2ImageProcessor"


class Tiles(NamedTuple):
    """The standardized tiles of some images, image by image, and the number of tiles of each image."""

    pixels: Float[Tensor, "tiles 3 tile_size tile_size"]
    counts: Int[Tensor, "images"]


@dataclass(frozen=True)
class InternVLImageProcessing:
    """Describe how photographs become tiles; the defaults are those of the published class.

    tile_size       side of a tile in pixels
    tiled           whether an image becomes several tiles; the published processor of prompts always sets it for
                    images, and files may have False
    min_tiles       least number of tiles of an image, without the thumbnail
    max_tiles       largest number of tiles of an image, without the thumbnail
    resample        Pillow's filter
    rescale_factor  pixels are multiplied by it before they are standardized
    mean, std       of each channel, for rescaled pixels

    Raises ValueError for limits that exclude each other.
    """

    tile_size: int = 384
    tiled: bool = False
    min_tiles: int = 1
    max_tiles: int = 12
    resample: Image.Resampling = Image.Resampling.BICUBIC
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        if not 0 < self.min_tiles <= self.max_tiles:
            raise ValueError(
                f"at least {self.min_tiles} and at most {self.max_tiles} tiles; expected limits in this order"
            )

    def grid(self, size: Size, *, tiled: bool | None = None) -> Size:
        """Return rows and columns of tiles of an image of (height, width). Raises ValueError without area."""
        several = (self.tiled if tiled is None else tiled) and self.max_tiles > 1
        return select_grid(size, self.tile_size, *((self.min_tiles, self.max_tiles) if several else (1, 1)))

    def cut(self, image: Image.Image, *, tiled: bool | None = None) -> list[UInt8[np.ndarray, "tile_size tile_size 3"]]:
        """Return the tiles of one image as bytes, row by row, then the thumbnail. Raises as `grid` does.

        Every mode becomes RGB: gray values are repeated, and transparent parts are white.
        """
        image, side = to_upright_rgb(image), self.tile_size
        rows, columns = self.grid((image.height, image.width), tiled=tiled)
        resized = np.asarray(image.resize((columns * side, rows * side), self.resample))
        corners = [(top, left) for top in range(0, rows * side, side) for left in range(0, columns * side, side)]
        tiles = [resized[top : top + side, left : left + side] for top, left in corners]
        if len(tiles) > 1:
            tiles.append(np.asarray(image.resize((side, side), self.resample)))
        return tiles

    def __call__(self, images: Sequence[Image.Image], *, tiled: bool | None = None) -> Tiles:
        """Return the tiles of several images; `tiled` replaces the setting. Raises ValueError for no image."""
        if not images:
            raise ValueError("no image was given; expected at least one")
        cut = [self.cut(image, tiled=tiled) for image in images]
        tiles = np.stack([tile for each in cut for tile in each])
        return Tiles(self._standardize(tiles), torch.tensor([len(each) for each in cut]))

    def _standardize(self, pixels: UInt8[np.ndarray, "tiles tile_size tile_size 3"]) -> Tensor:
        # The published order of operations and of roundings: float64 for the product, float32 after it.
        rescaled = (pixels.astype(np.float64) * self.rescale_factor).astype(np.float32)
        mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
        return torch.from_numpy((rescaled - mean) / std).permute(0, 3, 1, 2).contiguous()

    # ── Published settings ────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "InternVLImageProcessing":
        """Read the settings of a published folder (`preprocessor_config.json` or `processor_config.json`).

        Raises CourseError when they are missing, malformed or not supported, or of another image processor.
        """
        file, config = find_processor_settings(Path(folder), IMAGE_PROCESSOR, (MODEL_TYPE,))
        return build_config(cls, **read_settings(SETTINGS, config, str(file)))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the `preprocessor_config.json` that `transformers` reads."""
        size = {"height": self.tile_size, "width": self.tile_size}
        values = asdict(self) | {"tile_size": size, "resample": int(self.resample)}
        settings = {"image_processor_type": IMAGE_PROCESSOR, "do_convert_rgb": True, **write_settings(SETTINGS, values)}
        write_atomically(Path(folder) / FILE, (json.dumps(settings, indent=2) + "\n").encode())


def _tile_size(value: Any) -> int:
    """Accept {"height": side, "width": side}."""
    if isinstance(value, dict):
        sides = {name: side for name, side in value.items() if side is not None}
        if set(sides) == {"height", "width"} and sides["height"] == sides["width"]:
            return integer()(sides["height"])
    raise ValueError("equal height and width")


_QWEN = {row.published: row for row in qwen.SETTINGS}
SETTINGS: list[Row] = [
    Setting("size", "tile_size", 384, accept=_tile_size),
    Setting("crop_to_patches", "tiled", False),
    Setting("min_patches", "min_tiles", 1),
    Setting("max_patches", "max_tiles", 12),
    *(_QWEN[name] for name in ("resample", "rescale_factor", "image_mean", "image_std")),
    *(Fixed(name, True) for name in ("do_resize", "do_rescale", "do_normalize")),
    # Without it, images that are not RGB fail in the published class; for RGB it changes nothing.
    Unused("do_convert_rgb"),
    # Settings of every image processor that this one does not read.
    *(Unused(name) for name in ("default_to_square", "crop_size", "do_center_crop", "do_pad", "pad_size")),
    *(Unused(name) for name in ("data_format", "input_data_format", "device", "return_tensors", "disable_grouping")),
    Unused("image_seq_length"),
]
