"""Turn any image file of a user into the RGB image that a person expects to see, within one limit of size."""

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from shared.errors import CourseError
from shared.text_files import printable

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif"),  # read when the package pillow-heif is registered; otherwise refused by name
)
"""The file types, in lowercase, that readers of folders take for images."""

MAX_PIXELS = 120_000_000
"""Width × height of an image file; an RGB image of this size has 360 MB. A service has a smaller limit of its own."""
MAX_ASPECT_RATIO = 100
"""Longer side / shorter side of an image; scaling the shorter side up multiplies memory by it."""

ImageSource = Image.Image | Path | str
"""An opened image, or its file."""


def open_image(source: ImageSource) -> Image.Image:
    """Return an image as upright RGB (see `to_upright_rgb`).

    Raises CourseError, which names the file, when it is missing, damaged, too large or too narrow.
    """
    if isinstance(source, Image.Image):
        _check_size(source, "the image")
        return to_upright_rgb(source)
    name = printable(source)
    try:
        with warnings.catch_warnings():
            # What Pillow warns of, a large size, is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(source)
        with opened:
            _check_size(opened, name)
            return to_upright_rgb(opened)
    except CourseError:
        raise
    except FileNotFoundError:
        raise CourseError(f"{name} does not exist; expected an image") from None
    except Exception as error:
        # Pillow reports a damaged file with different exceptions, depending on the format and the damage.
        advice = "replace or remove it"
        if Path(source).suffix.lower() in (".heic", ".heif", ".avif"):
            advice = "convert it to JPEG or PNG, or remove it"
        raise CourseError(f"{name}: unreadable image ({printable(error)}); {advice}") from error


def _check_size(image: Image.Image, name: str) -> None:
    """Raise CourseError when an image, whose header is all that need be read, is beyond the limits."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise CourseError(f"{name} has {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} are read: make it smaller")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise CourseError(
            f"{name} has {width:,} × {height:,} pixels; the longer side may be at most {MAX_ASPECT_RATIO} times the "
            "shorter: crop it, or remove it"
        )


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB: rotated by its EXIF orientation, transparency on white, every kind of number as 8 bits.

    Of 16 bits the upper 8 are kept. Whole numbers of 32 bits and real numbers have no agreed range: real numbers from
    0 to 1 and whole numbers from 0 to 255 are taken as such, and others are scaled so that the largest is white and 0,
    or the smallest if it is negative, is black. An animation gives its first frame. Image folders and the web service
    both decode images with this function.

    Raises what Pillow raises (OSError, SyntaxError, ValueError …) for a damaged image, ValueError for values that are
    not finite.
    """
    # Decoding and copying an image removes some of what its header states.
    transparency, sample_bits, file_format = image.info.get("transparency"), _bits_per_sample(image), image.format
    image.load()  # once a decoder has failed, Pillow takes what it has decoded so far for the image
    # Damaged metadata does not matter as long as the image itself can be read.
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        alpha = np.where(levels == transparency, 0, 255) if isinstance(transparency, int) else None
        image = _gray_image(levels >> 8, alpha)
    elif image.mode in ("I", "F"):
        image = _gray_image(_scale_to_bytes(np.asarray(image), file_format), None)
    elif sample_bits not in (8, None) and isinstance(transparency, int | tuple):
        # Pillow scales the samples to 8 bits and leaves the transparent value as the file has it.
        image = image.copy()
        image.info["transparency"] = _as_bytes(transparency, sample_bits)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _gray_image(levels: Shaped[np.ndarray, "height width"], alpha: np.ndarray | None) -> Image.Image:
    gray = Image.fromarray(levels.astype(np.uint8))
    if alpha is not None:
        gray.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return gray


def _scale_to_bytes(values: np.ndarray, file_format: str | None) -> UInt8[np.ndarray, "height width"]:
    """Return 32-bit whole or real numbers as bytes. Raises ValueError when some are not finite."""
    if not np.isfinite(values).all():
        raise ValueError("some of its pixels are not finite numbers")
    lowest, highest = float(values.min()), float(values.max())
    if file_format == "PPM" and values.dtype.kind == "i":
        lowest, highest = 0.0, 65535.0  # Pillow scales a portable graymap of more than 8 bits to 16
    elif lowest >= 0 and highest <= (255 if values.dtype.kind == "i" else 1):
        lowest, highest = 0.0, 255.0 if values.dtype.kind == "i" else 1.0
    else:
        lowest = min(lowest, 0.0)
    span = highest - lowest or 1.0
    return np.rint((values.astype(np.float64) - lowest) / span * 255).astype(np.uint8)


def _bits_per_sample(image: Image.Image) -> int | None:
    """Return the bits of one sample in a PNG file that is not decoded yet, None for other images."""
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    arguments = tiles[0].args if tiles else None
    if not isinstance(arguments, str) or arguments.split(";")[0] not in ("1", "L", "RGB"):
        return None
    return {"1": 1, "L;2": 2, "L;4": 4, "RGB;16B": 16}.get(arguments, 8)


def _as_bytes(value: int | tuple[int, ...], bits: int) -> int | tuple[int, ...]:
    if isinstance(value, tuple):
        return tuple(each >> 8 for each in value)
    return value * 255 // (2**bits - 1)
