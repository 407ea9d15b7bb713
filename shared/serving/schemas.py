"""Validation of request bodies: the fields of /caption, /question, /chat and of OpenAI's chat completions.

An unknown field is an error that names it: a misspelled `temprature` must not be ignored silently.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from shared.serving.errors import ServiceError

MAX_MESSAGES = 512
MAX_PARTS = 64
MAX_ERRORS = 100
ERRORS_SHOWN = 3

MAX_STOP_SEQUENCES = 4

EmptyList = Annotated[list[Any], Field(max_length=0)]
EmptyObject = Annotated[dict[str, Any], Field(max_length=0)]
StopSequence = Annotated[str, Field(min_length=1, max_length=256)]
NonBlank = Annotated[str, StringConstraints(min_length=1, strip_whitespace=False, pattern=r"\S")]


class Body(BaseModel):
    """Parse strictly: "3" is not a number and true is not 1. In a form all values are text and are parsed.

    A field that is null counts as left out, as in OpenAI's API.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            return {name: value for name, value in fields.items() if value is not None}
        return fields


Truncation = Literal["disabled", "auto"]
TRUNCATION = Field(None, description="auto: leave out the oldest turns of a conversation that is too long")


class SamplingFields(Body):
    """How the next token is chosen; by default the most likely one."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


class GenerationFields(SamplingFields):
    """The fields that the service's own paths have in common."""

    max_new_tokens: int | None = Field(None, ge=1, lt=2**31)


class CaptionForm(GenerationFields):
    """POST /caption, beside the file `image`."""


class QuestionForm(GenerationFields):
    """POST /question, beside the file `image`."""

    question: NonBlank


class ChatBody(GenerationFields):
    """POST /chat: one turn. Without a `conversation_id` it begins a conversation; the reply contains the id."""

    message: NonBlank
    image: str | None = Field(None, description="base64, or a data:image/…;base64,… URL")
    conversation_id: str | None = Field(None, max_length=128)
    truncation: Truncation | None = TRUNCATION


class TextPart(Body):
    type: Literal["text"]
    text: str


class ImageURL(Body):
    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: ImageURL


def _part_type(part: object) -> str | None:
    part_type = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return part_type if isinstance(part_type, str) else None


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[ImagePart, Tag("image_url")],
    Discriminator(_part_type),
]


class ChatMessage(Body):
    """One turn in OpenAI's form: a text, or parts that are texts or images.

    A reply of the service can be sent back as it is, with the fields of the official client's `model_dump()`.
    """

    role: Literal["system", "user", "assistant", "developer"]  # "developer" is the newer name of "system"
    content: str | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True)]
    name: str | None = None
    annotations: EmptyList | None = None
    tool_calls: EmptyList | None = None


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(Body):
    type: Literal["text"]


class CompletionBody(SamplingFields):
    """POST /v1/chat/completions: the fields of OpenAI's request that the service supports.

    Below them are those that are accepted at values that change nothing, because official clients send them.
    """

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="the older name of max_completion_tokens")
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: StopSequence | Annotated[list[StopSequence], Field(max_length=MAX_STOP_SEQUENCES)] | None = None
    n: int | None = Field(None, ge=1, le=128, description="number of answers; at most the setting max_choices")
    truncation: Truncation | None = TRUNCATION

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = Field(None, description="nothing is stored")
    service_tier: Literal["auto", "default"] | None = None
    response_format: TextFormat | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    reasoning_effort: Literal["none"] | None = None
    tools: EmptyList | None = None
    functions: EmptyList | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    logit_bias: EmptyObject | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    @property
    def stop_sequences(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


BodyType = TypeVar("BodyType", bound=Body)


def parse_json(body_type: type[BodyType], body: bytes) -> BodyType:
    """Parse and validate a JSON body. Raises ServiceError not_json, or invalid_request with the fields at fault."""
    return _validated(lambda: body_type.model_validate_json(body))


def parse_form(body_type: type[BodyType], fields: dict[str, str]) -> BodyType:
    """Parse and validate the fields of a form, whose numbers are text. Raises ServiceError invalid_request."""
    return _validated(lambda: body_type.model_validate_strings(fields, strict=False))


def _validated(validate: Callable[[], BodyType]) -> BodyType:
    try:
        return validate()
    except ValidationError as error:
        # A body may be wrong in a million places, and the list of them would be larger than the body.
        if error.error_count() > MAX_ERRORS:
            raise ServiceError("invalid_request", f"{error.error_count():,} fields are wrong or unknown") from None
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise ServiceError("not_json", f"the body is not JSON: {errors[0]['msg']}") from None
        # Field names come from the client, and pydantic repeats an unknown tag, so their length is limited here.
        names = [".".join(map(str, each["loc"]))[:80] or "body" for each in errors]
        messages = [f"{name}: {each['msg'][:160]}" for name, each in zip(names, errors, strict=True)]
        more = f"; and {len(errors) - ERRORS_SHOWN} more" if len(errors) > ERRORS_SHOWN else ""
        raise ServiceError("invalid_request", "; ".join(messages[:ERRORS_SHOWN]) + more, param=names[0]) from None
