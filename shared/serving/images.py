"""From what a stranger sent to a picture: upright, RGB, of bounded size.

A file of a kilobyte can say that it holds ten gigabytes of pixels. So the header is read first, its size is held
against the limits, and only then is anything decoded; and only by the decoders of a few common formats.
"""

import base64
import binascii
import io
import re
import warnings

from PIL import Image, UnidentifiedImageError

from shared.images import to_upright_rgb
from shared.serving.problems import Problem
from shared.serving.settings import Settings

# Python remembers each warning that it has shown. Pillow's name numbers from the file, so a patient stranger could
# fill the memory with them; and what they warn of is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


def picture(data: bytes, settings: Settings, *, param: str = "image") -> Image.Image:
    """Read an image file: its first frame, turned upright, on white where it is transparent, RGB, 8 bits.

    Raises Problem: not_an_image, too_many_pixels, image_too_narrow, broken_image.
    """
    with _opened(data, settings, param) as image:
        try:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, for as much less memory.
            image.draft(None, (settings.side, settings.side))
            image.load()
            rgb = to_upright_rgb(image)
        except Exception as error:
            # Decoders meet here what was made to break them; whatever they raise, the file is at fault.
            raise Problem(
                "broken_image",
                "the image file is damaged or cut short: it could not be decoded to its end; send it whole",
                param=param,
            ) from error
    if max(rgb.size) > settings.side:
        rgb.thumbnail((settings.side, settings.side), Image.Resampling.LANCZOS)
    return rgb


def _opened(data: bytes, settings: Settings, param: str) -> Image.Image:
    """Read the header alone, and refuse what would be too large."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("more pixels than any photograph", settings, param) from error
    except Exception as error:
        kind = "no image" if isinstance(error, UnidentifiedImageError) else "an image with a broken head"
        raise Problem(
            "not_an_image", f"{len(data):,} bytes that are {kind}; send {', '.join(FORMATS)}", param=param
        ) from error
    if width * height > settings.pixels:
        raise _too_many_pixels(f"{width:,} × {height:,} pixels", settings, param)
    if max(width, height) > settings.aspect * min(width, height):
        raise Problem(
            "image_too_narrow",
            f"the image has {width:,} × {height:,} pixels; one side may be {settings.aspect} times the other at most",
            param=param,
        )
    return image


def _too_many_pixels(given: str, settings: Settings, param: str) -> Problem:
    limit = f"{settings.pixels:,} are taken at most; send it smaller"
    return Problem("too_many_pixels", f"the image has {given}; {limit}", param=param)


def from_base64(text: str, *, param: str = "image") -> bytes:
    """The bytes of a base64 text; line breaks in it are as usual. Raises Problem broken_base64."""
    try:
        # Each four characters are three bytes; anything outside the alphabet is an error, not to be skipped.
        data = base64.b64decode(re.sub(r"[ \t\r\n]", "", text).encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(
            "broken_base64", "not base64: A–Z, a–z, 0–9, + and /, padded with = to a multiple of four", param=param
        ) from error
    return data


def from_data_url(url: str, *, param: str = "image_url") -> bytes:
    """The bytes of a `data:image/…;base64,…` URL.

    Other URLs are refused, and not for want of a few lines: who lets strangers name an address that the service then
    fetches lets them look into the network behind it, and send it files without end.

    Raises Problem invalid_request for anything but such a URL, broken_base64.
    """
    head, comma, text = url.partition(",")
    if not comma or not re.fullmatch(
        r"data:image/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64", head, re.ASCII | re.IGNORECASE
    ):
        raise Problem(
            "invalid_request",
            "an image comes in the request itself, as data:image/png;base64,…; no other address is fetched",
            param=param,
        )
    return from_base64(text, param=param)
