"""Image decoding: from untrusted bytes to an upright RGB image of bounded size.

A file of a kilobyte can claim ten gigabytes of pixels, and one of 70 kilobytes can occupy a processor for minutes. So
the header is read first and its values are checked against the limits. Only then the file is decoded, and only by the
decoders of a few common formats. The service calls this in processes of its own (decoding_worker.py), so this module
imports nothing of the web service.
"""

import io
import re
import warnings

from PIL import Image, UnidentifiedImageError, features

from shared.images import to_upright_rgb
from shared.serving.settings import Settings

# Python stores each warning that it has shown, and Pillow's contain numbers from the file: an attacker could fill the
# memory with them. What they warn of is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))

# ITU-T T.81, table B.1. A marker is 0xFF and its code; before the code 0xFF may be repeated.
_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_MARKERS_WITH_LENGTH = {*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE}


class ImageError(ValueError):
    """A file is refused. `code` is one of errors.STATUS; the message contains nothing about this machine."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


def decode_image(data: bytes, settings: Settings) -> Image.Image:
    """Decode an image file: its first frame, turned upright, white where it is transparent, RGB, 8 bits.

    Raises ImageError not_an_image, too_many_pixels, image_too_narrow, image_too_complex, broken_image.
    """
    with open_checked(data, settings) as image:
        try:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, with less memory.
            image.draft(None, (settings.image_side, settings.image_side))
            # Do not call image.load() before: decoding removes what the header states about transparency.
            rgb = to_upright_rgb(image)
        except MemoryError as error:
            raise ImageError(
                "image_too_complex", "the image needs too much memory to be decoded; save it in another format"
            ) from error
        except Exception as error:
            # Files may be made to break decoders. Whatever exception results, the file is at fault.
            raise ImageError(
                "broken_image",
                "the image file is damaged or cut short and could not be decoded to its end; send a complete file",
            ) from error
    if max(rgb.size) > settings.image_side:
        rgb.thumbnail((settings.image_side, settings.image_side), Image.Resampling.LANCZOS)
    return rgb


def open_checked(data: bytes, settings: Settings) -> Image.Image:
    """Read only the header and check it against the limits.

    Raises ImageError not_an_image, too_many_pixels, image_too_narrow, image_too_complex.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("more pixels than any photograph", settings) from error
    except Exception as error:
        problem = "no image" if isinstance(error, UnidentifiedImageError) else "an image with a broken header"
        raise ImageError(
            "not_an_image", f"the file of {len(data):,} bytes is {problem}; send one of {', '.join(FORMATS)}"
        ) from error
    if width * height > settings.max_pixels:
        raise _too_many_pixels(f"{width:,} × {height:,} pixels", settings)
    if max(width, height) > settings.max_aspect_ratio * min(width, height):
        raise ImageError(
            "image_too_narrow",
            f"the image has {width:,} × {height:,} pixels; the longer side may be at most "
            f"{settings.max_aspect_ratio} times the shorter one",
        )
    if data.startswith(b"\xff\xd8") and (scans := count_scans(data)) > settings.max_scans:
        raise ImageError(
            "image_too_complex",
            f"the JPEG has {scans:,} scans, each of which passes over all pixels; at most {settings.max_scans} are "
            "accepted; save it anew, with or without progressive encoding",
        )
    return image


def count_scans(data: bytes) -> int:
    """Count the scans of a JPEG file without decoding it.

    A progressive JPEG refines all of its coefficients with every scan. Encoders write about ten, but a file can hold
    thousands of a few bytes each, and the time of decoding grows with their number times the pixels.
    """
    scans, position = 0, 0
    while marker := _MARKER.search(data, position):
        (code,), position = marker[1], marker.end()
        if code == _END_OF_IMAGE:
            break
        scans += code == _START_OF_SCAN
        if code in _MARKERS_WITH_LENGTH:  # what looks like a marker in there is metadata, such as a thumbnail
            position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _too_many_pixels(size: str, settings: Settings) -> ImageError:
    return ImageError(
        "too_many_pixels", f"the image has {size}; at most {settings.max_pixels:,} are accepted; send a smaller one"
    )
