"""OpenAI's chat completions, as far as a small model with images can support them.

The responses follow what the official client expects: https://platform.openai.com/docs/api-reference/chat
"""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from PIL import Image
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.serving.answers import AnswerService, PreparedRequest
from shared.serving.errors import AsciiJSONResponse, ServiceError
from shared.serving.image_texts import bytes_from_data_url
from shared.serving.schemas import ChatMessage, CompletionBody, ImagePart, TextPart
from shared.serving.served_model import Message


def list_models(answers: AnswerService) -> Response:
    """Answer GET /v1/models: there is one model."""
    model = {"id": answers.model.name, "object": "model", "created": 0, "owned_by": "here"}
    return AsciiJSONResponse({"object": "list", "data": [model]})


async def complete_chat(body: CompletionBody, answers: AnswerService) -> Response:
    """Answer POST /v1/chat/completions, as one JSON object or as a stream.

    Raises ServiceError for every request that cannot be answered, also for a stream that has not begun.
    """
    if body.model != answers.model.name:
        raise ServiceError("model_not_found", f"the only model here is {answers.model.name}; use it", param="model")
    messages = await _read_messages(body.messages, answers)
    prepared = await answers.prepare(messages, body, body.max_completion_tokens or body.max_tokens)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        texts = prepared.texts()
        # An answer that cannot begin still gets its own status; later errors can only be part of the stream.
        first = await anext(texts, None)
        return EventStream(_events(head, first, texts, prepared, with_usage=with_usage), texts)
    answer = await prepared.answer()
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    return AsciiJSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage})


async def _read_messages(turns: Sequence[ChatMessage], answers: AnswerService) -> list[Message]:
    if turns[-1].role != "user":
        raise ServiceError(
            "invalid_request", "expected a user message at the end of the conversation", param="messages"
        )
    images = sum(
        isinstance(part, ImagePart) for turn in turns if isinstance(turn.content, list) for part in turn.content
    )
    if images > answers.settings.max_images:
        raise ServiceError(
            "invalid_request",
            f"the request has {images} images; at most {answers.settings.max_images} are accepted",
            param="messages",
        )
    return [await _read_message(turn, f"messages.{number}", answers) for number, turn in enumerate(turns)]


async def _read_message(turn: ChatMessage, location: str, answers: AnswerService) -> Message:
    role = "system" if turn.role == "developer" else turn.role
    if isinstance(turn.content, str):
        return Message(role, turn.content)
    texts, images = [], []
    for number, part in enumerate(turn.content):
        param = f"{location}.content.{number}"
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif role != "user":
            raise ServiceError("invalid_request", "only user messages may contain images", param=param)
        else:
            images.append(await _read_image(part, f"{param}.image_url", answers))
    return Message(role, "\n".join(texts), tuple(images))


async def _read_image(part: ImagePart, param: str, answers: AnswerService) -> Image.Image:
    data = await answers.threads.run(lambda: bytes_from_data_url(part.image_url.url, param=param))
    return await answers.images.decode(data, param=param)


async def _events(
    head: dict[str, Any],
    first: str | None,
    texts: AsyncIterator[str],
    prepared: PreparedRequest,
    *,
    with_usage: bool,
) -> AsyncGenerator[str, None]:
    """Yield the answer as server-sent events: role, text token by token, finish reason, usage, [DONE]."""

    def event(content: dict[str, Any]) -> str:
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **content})}\n\n"

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return event({"choices": [choice]} | ({"usage": None} if with_usage else {}))

    yield chunk({"role": "assistant", "content": ""})
    try:
        if first:
            yield chunk({"content": first})
        async for text in texts:
            if text:
                yield chunk({"content": text})
    except ServiceError as error:
        # The status is already sent. OpenAI's clients raise what is under "error"; [DONE] would claim success.
        yield f"data: {json.dumps(error.body())}\n\n"
        return
    yield chunk({}, prepared.finish_reason)
    if with_usage:
        yield event({"choices": [], "usage": prepared.usage})
    yield "data: [DONE]\n\n"


class EventStream(Response):
    """Send server-sent events. However it ends, their source is closed at once, not at the next garbage collection."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], source: AsyncGenerator[str, None]):
        super().__init__(None, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.events, self.source = events, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self.source), contextlib.aclosing(self.events):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self.events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
