"""Opening images for the assistant: upright, in color, white where they are transparent."""

from pathlib import Path

from PIL import Image

from data.datasets.image_folder import UNREADABLE
from shared.errors import CourseError
from shared.images import to_upright_rgb

ImageSource = Image.Image | Path | str
"""An opened image, or its file."""


def open_image(source: ImageSource) -> Image.Image:
    """Return an image as upright RGB. Raises CourseError, which names the file, when it is missing or damaged."""
    if isinstance(source, Image.Image):
        return to_upright_rgb(source)
    try:
        with Image.open(source) as opened:
            return to_upright_rgb(opened)
    except FileNotFoundError:
        raise CourseError(f"{source} does not exist; expected an image") from None
    except UNREADABLE as error:
        raise CourseError(f"{source} is not a complete image ({error}); replace or remove it") from error
