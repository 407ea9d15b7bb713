"""Forms with a file in them (multipart/form-data, RFC 7578), read in memory.

The parser is Starlette's. It is called here by hand so that it takes one file and a few short fields, and keeps
nothing on a disk: a stranger's picture has no business there, and a container may have none to write to.
"""

import logging
from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from shared.serving.problems import Problem

# The parser notes down whatever is odd about a form, at a line each; whoever sends odd forms could fill a disk.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

FIELDS = 16
FIELD_BYTES = 1024 * 1024


async def read_form(request: Request) -> tuple[bytes, dict[str, str]]:
    """The bytes of the file `image`, and the other fields by name. A part named `image` without a file name is taken too.

    Raises Problem: wrong_content_type, broken_form, invalid_request.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise Problem(
            "wrong_content_type", "send a form with a file: multipart/form-data, as curl -F image=@cat.jpg does"
        )
    body = await request.body()
    parser = MultiPartParser(request.headers, _once(body), max_files=1, max_fields=FIELDS, max_part_size=FIELD_BYTES)
    parser.spool_max_size = len(body) + 1  # no file in it can be larger: all stays in memory
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("broken_form", f"the form could not be read: {error.message}") from None
    except Exception as error:
        # The parser was not made for bodies that are nearly forms.
        raise Problem("broken_form", "the form could not be read; let a library write it") from error
    try:
        fields = dict(form.multi_items())
        if len(fields) < len(form.multi_items()):
            raise Problem("invalid_request", "a field comes twice; each may come once")
        file = fields.pop("image", None)
        if not isinstance(file, UploadFile):
            raise Problem("invalid_request", "image: the form has no file of this name", param="image")
        return await file.read(), fields
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
