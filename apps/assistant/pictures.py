"""Pictures as a model is to see them: upright, in colour, on white paper."""

from pathlib import Path

from PIL import Image

from data.datasets.image_folder import UNREADABLE
from shared.errors import CourseError
from shared.images import to_upright_rgb


def open_picture(source: Path | str | Image.Image) -> Image.Image:
    """A picture from a file, or one that is open already, as RGB and upright.

    Raises CourseError, naming the file, when it is missing or no whole picture.
    """
    if isinstance(source, Image.Image):
        return to_upright_rgb(source)
    try:
        with Image.open(source) as opened:
            return to_upright_rgb(opened)
    except FileNotFoundError:
        raise CourseError(f"{source} is not there; expected a picture") from None
    except UNREADABLE as error:
        raise CourseError(f"{source} is no whole picture ({error}); replace or remove it") from error
