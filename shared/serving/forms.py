"""Parse forms with a file (multipart/form-data, RFC 7578) in memory.

The parser is Starlette's. It is called by hand so that it accepts one file and a few short fields, and writes nothing
to disk: a container may have no writable disk.
"""

import logging
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from shared.serving.errors import ServiceError

# The parser logs a line for each irregularity of a form, with which clients could fill a disk.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024 * 1024


async def read_image_form(request: Request) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of the file `image`, and the other fields by name.

    Raises ServiceError wrong_content_type, broken_form, invalid_request.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ServiceError(
            "wrong_content_type",
            "expected a form with a file (multipart/form-data); curl -F image=@cat.jpg sends one",
        )
    body = await request.body()
    parser = MultiPartParser(
        request.headers, _single_chunk(body), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    parser.spool_max_size = len(body) + 1  # no file in it can be larger: all stays in memory
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ServiceError("broken_form", f"the form could not be parsed: {error.message}") from None
    except Exception as error:
        # The parser raises other exceptions for bodies that are nearly forms.
        raise ServiceError("broken_form", "the form could not be parsed; use a library to write it") from error
    try:
        items = form.multi_items()
        fields = dict(items)
        if len(fields) < len(items):
            raise ServiceError("invalid_request", "a field occurs twice; send each field once")
        file = fields.pop("image", None)
        if not isinstance(file, UploadFile):
            raise ServiceError("invalid_request", "image: the form has no file with this name", param="image")
        return await file.read(), {name: value for name, value in fields.items() if isinstance(value, str)}
    finally:
        await form.close()


async def _single_chunk(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
