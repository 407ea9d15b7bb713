"""Pictures as a model is to see them: upright, in colour, on white paper."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from shared.errors import CourseError

# Pillow reports a damaged file by many kinds of error, depending on the format and on where the damage lies.
UNREADABLE = (OSError, SyntaxError, ValueError, IndexError, TypeError, Image.DecompressionBombError)


def open_picture(source: Path | str | Image.Image) -> Image.Image:
    """A picture from a file, or one that is open already, as RGB and upright.

    Raises CourseError, naming the file, when it is missing or no whole picture.
    """
    if isinstance(source, Image.Image):
        return upright(source)
    try:
        with Image.open(source) as opened:
            return upright(opened)
    except FileNotFoundError:
        raise CourseError(f"{source} is not there; expected a picture") from None
    except UNREADABLE as error:
        raise CourseError(f"{source} is no whole picture ({error}); replace or remove it") from error


def upright(image: Image.Image) -> Image.Image:
    """Turned as the camera was held; 16 bits of grey as 8; what is transparent shows white; of a film the first picture."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
