"""Images as text in JSON: from base64 or a data URL to the bytes of a file."""

import base64
import binascii
import re

from shared.serving.errors import ServiceError


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
