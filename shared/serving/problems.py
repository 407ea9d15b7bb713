"""What a service says when it cannot answer: a status, a code for programs, a sentence for people.

The form is OpenAI's on every path, so that one client understands all of them.
"""

import json

from starlette.responses import Response

# Each limit has a status of its own: body 413, pixels 422, tokens 400, concurrency 429, time 504.
STATUS = {
    "not_json": 400,
    "broken_form": 400,
    "broken_base64": 400,
    "context_length_exceeded": 400,
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
TYPES = {429: "rate_limit_error"}


class Problem(Exception):
    """Ends a request with an error that the client may read.

    code     one of STATUS
    message  what was given, what was expected, what to do; never a path, never another exception's words
    param    the field at fault, where there is one
    """

    def __init__(self, code: str, message: str, *, param: str | None = None):
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.status = STATUS[code]

    def body(self) -> dict:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        # Who was refused for want of room may come again soon.
        headers = {"retry-after": "1"} if self.status in (429, 503) else {}
        return JSON(self.body(), self.status, headers)


class JSON(Response):
    """JSON in ASCII: text from a client may hold halves of characters that UTF-8 has no bytes for."""

    media_type = "application/json"

    def __init__(self, content: dict, status: int = 200, headers: dict[str, str] | None = None):
        super().__init__(content, status, headers)

    def render(self, content: dict) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
