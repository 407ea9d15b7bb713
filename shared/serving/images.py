"""Image decoding: from untrusted bytes to an upright RGB image of bounded size.

A file of a kilobyte can claim ten gigabytes of pixels. So the header is read first and its size is checked against the
limits. Only then the file is decoded, and only by the decoders of a few common formats.
"""

import base64
import binascii
import io
import re
import warnings

from PIL import Image, UnidentifiedImageError

from shared.images import to_upright_rgb
from shared.serving.errors import ServiceError
from shared.serving.settings import Settings

# Python stores each warning that it has shown, and Pillow's contain numbers from the file: an attacker could fill the
# memory with them. What they warn of is refused here.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")


def decode_image(data: bytes, settings: Settings, *, param: str = "image") -> Image.Image:
    """Decode an image file: its first frame, turned upright, white where it is transparent, RGB, 8 bits.

    Raises ServiceError not_an_image, too_many_pixels, image_too_narrow, broken_image.
    """
    with open_checked(data, settings, param) as image:
        try:
            # A JPEG can be decoded at a half, a quarter or an eighth of its size, with less memory.
            image.draft(None, (settings.image_side, settings.image_side))
            image.load()
            rgb = to_upright_rgb(image)
        except Exception as error:
            # Files may be made to break decoders. Whatever exception results, the file is at fault.
            raise ServiceError(
                "broken_image",
                "the image file is damaged or cut short and could not be decoded to its end; send a complete file",
                param=param,
            ) from error
    if max(rgb.size) > settings.image_side:
        rgb.thumbnail((settings.image_side, settings.image_side), Image.Resampling.LANCZOS)
    return rgb


def open_checked(data: bytes, settings: Settings, param: str) -> Image.Image:
    """Read only the header and check the image's size against the limits.

    Raises ServiceError not_an_image, too_many_pixels, image_too_narrow.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise _too_many_pixels("more pixels than any photograph", settings, param) from error
    except Exception as error:
        problem = "no image" if isinstance(error, UnidentifiedImageError) else "an image with a broken header"
        raise ServiceError(
            "not_an_image",
            f"the file of {len(data):,} bytes is {problem}; send one of {', '.join(FORMATS)}",
            param=param,
        ) from error
    if width * height > settings.max_pixels:
        raise _too_many_pixels(f"{width:,} × {height:,} pixels", settings, param)
    if max(width, height) > settings.max_aspect_ratio * min(width, height):
        raise ServiceError(
            "image_too_narrow",
            f"the image has {width:,} × {height:,} pixels; the longer side may be at most "
            f"{settings.max_aspect_ratio} times the shorter one",
            param=param,
        )
    return image


def _too_many_pixels(size: str, settings: Settings, param: str) -> ServiceError:
    message = f"the image has {size}; at most {settings.max_pixels:,} are accepted; send a smaller one"
    return ServiceError("too_many_pixels", message, param=param)


def bytes_from_text(text: str, *, param: str = "image") -> bytes:
    """Decode base64 or a data URL. Raises ServiceError as the two functions below do."""
    decode = bytes_from_data_url if text.startswith("data:") else bytes_from_base64
    return decode(text, param=param)


def bytes_from_base64(text: str, *, param: str = "image") -> bytes:
    """Decode a base64 text, which may contain line breaks. Raises ServiceError broken_base64."""
    try:
        # Four characters encode three bytes. A character outside the alphabet is an error and is not skipped.
        return base64.b64decode(re.sub(r"[ \t\r\n]", "", text).encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(
            "broken_base64",
            "the text is not base64; expected A–Z, a–z, 0–9, + and /, padded with = to a multiple of four",
            param=param,
        ) from error


def bytes_from_data_url(url: str, *, param: str = "image_url") -> bytes:
    """Decode a `data:image/…;base64,…` URL.

    Other URLs are refused: a service that fetches addresses from clients exposes the network behind it, and can be
    sent files without end.

    Raises ServiceError invalid_request for any other URL, broken_base64.
    """
    head, comma, text = url.partition(",")
    if not comma or not re.fullmatch(
        r"data:image/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64", head, re.ASCII | re.IGNORECASE
    ):
        raise ServiceError(
            "invalid_request",
            "expected an image inside the request, as data:image/png;base64,…; other URLs are not fetched",
            param=param,
        )
    return bytes_from_base64(text, param=param)
