"""Errors of the service: an HTTP status, a code for programs, a message for people.

Every path uses OpenAI's form, so that one client understands all of them.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

STATUS = {
    "not_json": 400,
    "broken_form": 400,
    "broken_base64": 400,
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "no_such_path": 404,
    "model_not_found": 404,
    "unknown_conversation": 404,
    "method_not_allowed": 405,
    "upload_too_slow": 408,
    "conversation_busy": 409,
    "body_too_large": 413,
    "not_an_image": 415,
    "wrong_content_type": 415,
    "too_many_pixels": 422,
    "image_too_narrow": 422,
    "image_too_complex": 422,
    "broken_image": 422,
    "invalid_request": 422,
    "refused": 422,
    "too_many_requests": 429,
    "internal_error": 500,
    "starting": 503,
    "stopping": 503,
    "model_failed": 503,
    "too_slow": 504,
}
"""HTTP status by error code; each limit has its own: body 413, pixels 422, tokens 400, concurrency 429, time 504."""


class ServiceError(Exception):
    """End a request with an error that the client may read.

    code     one of STATUS
    message  what was given, what was expected, what to do; never a path, never another exception's text
    param    the field at fault, if there is one
    """

    def __init__(self, code: str, message: str, *, param: str | None = None):
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.status = STATUS[code]

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's form."""
        if self.status == 429:
            error_type = "rate_limit_error"
        else:
            error_type = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": error_type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """Return the HTTP response; with status 429 or 503 it tells the client to retry after a second."""
        headers = {"retry-after": "1"} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return AsciiJSONResponse(self.body(), self.status, headers)


class AsciiJSONResponse(Response):
    """Encode JSON in ASCII: text from a client may contain lone surrogates, which UTF-8 cannot encode."""

    media_type = "application/json"

    def __init__(self, content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None):
        super().__init__(content, status, headers)

    def render(self, content: Mapping[str, Any]) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
