"""What clients send and get, field by field: the service's own three questions, and OpenAI's chat completions.

A field that nobody knows is an error that names it: a misspelled `temprature` must not quietly do nothing.
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, ValidationError

from shared.serving.problems import Problem
from shared.serving.served_model import ROLES

MESSAGES = 512
PARTS = 64
MOST_ERRORS = 100
SHOWN = 3

Words = Annotated[str, StringConstraints(min_length=1, strip_whitespace=False, pattern=r"\S")]


class Body(BaseModel):
    """Strict: "3" is no number and true is no 1; in a form everything is text, and is read."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Sampling(Body):
    """How an answer is chosen; the likeliest token each time, unless asked otherwise."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


class Asked(Sampling):
    max_new_tokens: int | None = Field(None, ge=1, lt=2**31)


class CaptionForm(Asked):
    """POST /caption, beside the file `image`."""


class QuestionForm(Asked):
    """POST /question, beside the file `image`."""

    question: Words


class ChatBody(Asked):
    """POST /chat: one turn. Without a `conversation_id` it is the first; the answer names the one to go on with."""

    message: Words
    image: str | None = Field(None, description="base64, or a data:image/…;base64,… URL")
    conversation_id: str | None = Field(None, max_length=128)


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImageURL(Body):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageURL


def _kind_of_part(part: object) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind if isinstance(kind, str) else None


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[ImagePart, Tag("image_url")],
    Discriminator(_kind_of_part),
]


class ChatMessage(Body):
    """One turn, as OpenAI writes it: words, or parts that are words or pictures."""

    role: Literal[(*ROLES, "developer")]  # the newer name of "system"
    content: str | Annotated[list[Part], Field(min_length=1, max_length=PARTS, fail_fast=True)]
    name: str | None = None


class StreamOptions(Body):
    include_usage: bool = False


class CompletionBody(Sampling):
    """POST /v1/chat/completions: what of OpenAI's request a small model can honor.

    What it cannot is taken only at the value that asks for nothing.
    """

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES, fail_fast=True)]
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="the older name of max_completion_tokens")
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Literal[1] | None = 1
    logprobs: Literal[False] | None = False
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None


Kind = TypeVar("Kind", bound=Body)


def from_json(kind: type[Kind], body: bytes) -> Kind:
    """Read a JSON body. Raises Problem not_json, or invalid_request with the fields at fault."""
    return _checked(lambda: kind.model_validate_json(body))


def from_form(kind: type[Kind], fields: dict[str, str]) -> Kind:
    """Read the fields of a form, where numbers are written as text. Raises Problem invalid_request."""
    return _checked(lambda: kind.model_validate_strings(fields, strict=False))


def _checked(read: Callable[[], Kind]) -> Kind:
    try:
        return read()
    except ValidationError as error:
        # A request may be wrong in a million places, and a list of them would be larger than itself.
        if error.error_count() > MOST_ERRORS:
            raise Problem("invalid_request", f"{error.error_count():,} fields are wrong or unknown") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem("not_json", f"the body is not JSON: {faults[0]['msg']}") from None
        # Names of fields come from the client, and pydantic repeats a tag that it doesn't know: not at any length.
        names = [".".join(map(str, fault["loc"]))[:80] or "body" for fault in faults]
        shown = "; ".join(f"{name}: {fault['msg'][:160]}" for name, fault in zip(names[:SHOWN], faults, strict=False))
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise Problem("invalid_request", shown + more, param=names[0]) from None
