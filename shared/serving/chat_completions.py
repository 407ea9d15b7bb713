"""OpenAI's chat completions, as far as a small model with images can support them.

The responses follow what the official client expects: https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from typing import Any

from PIL import Image
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.serving.answers import Answer, AnswerService, PreparedRequest
from shared.serving.errors import AsciiJSONResponse, ServiceError
from shared.serving.image_texts import bytes_from_data_url
from shared.serving.merging import merge
from shared.serving.schemas import ChatMessage, CompletionBody, ImagePart, TextPart
from shared.serving.served_model import Message


def list_models(answers: AnswerService) -> Response:
    """Answer GET /v1/models: there is one model."""
    return AsciiJSONResponse({"object": "list", "data": [_model(answers)]})


def show_model(name: str, answers: AnswerService) -> Response:
    """Answer GET /v1/models/{name}. Raises ServiceError model_not_found."""
    _check_name(name, answers)
    return AsciiJSONResponse(_model(answers))


def _model(answers: AnswerService) -> dict[str, Any]:
    return {"id": answers.model.name, "object": "model", "created": 0, "owned_by": "here"}


def _check_name(name: str, answers: AnswerService) -> None:
    if name != answers.model.name:
        raise ServiceError("model_not_found", f"the only model here is {answers.model.name}; use it", param="model")


async def complete_chat(body: CompletionBody, answers: AnswerService) -> Response:
    """Answer POST /v1/chat/completions, as one JSON object or as a stream.

    Raises ServiceError for every request that cannot be answered, also for a stream that has not begun.
    """
    _check_name(body.model, answers)
    count, limit = body.n or 1, answers.settings.max_choices
    if count > limit:
        raise ServiceError("invalid_request", f"n: {count} answers are more than the {limit} allowed", param="n")
    prepared = await answers.prepare(
        await read_messages(body.messages, answers),
        body,
        body.max_completion_tokens or body.max_tokens,
        truncation=body.truncation,
        stop=body.stop_sequences,
    )
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}
    if prepared.dropped_messages:
        head["dropped_messages"] = prepared.dropped_messages
    requests = prepared.choices(count)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        texts = merge([each.texts() for each in requests])
        # An answer that cannot begin still gets its own status; later errors can only be part of the stream.
        first = await anext(texts)
        return EventStream(_events(head, first, texts, requests, with_usage=with_usage), texts)
    finished = await _gather([each.answer() for each in requests])
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "finish_reason": answer.finish_reason,
            "logprobs": None,
        }
        for index, answer in enumerate(finished)
    ]
    return AsciiJSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": _usage(requests)})


async def _gather(answers: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Run all; when one fails or the caller is canceled, end the others."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _usage(requests: Sequence[PreparedRequest]) -> dict[str, int]:
    """Return the tokens of all answers to one prompt, which counts once."""
    completion_tokens = sum(each.answer_tokens for each in requests)
    return requests[0].usage | {
        "completion_tokens": completion_tokens,
        "total_tokens": requests[0].prompt_tokens + completion_tokens,
    }


async def read_messages(turns: Sequence[ChatMessage], answers: AnswerService) -> list[Message]:
    """Return the turns as messages with decoded images. Raises ServiceError for what is not a conversation."""
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
    first: tuple[int, str | None],
    texts: AsyncIterator[tuple[int, str | None]],
    requests: Sequence[PreparedRequest],
    *,
    with_usage: bool,
) -> AsyncGenerator[str, None]:
    """Yield the answers as server-sent events: role, text token by token, finish reason, usage, [DONE]."""

    def event(content: dict[str, Any]) -> str:
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **content})}\n\n"

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return event({"choices": [choice]} | ({"usage": None} if with_usage else {}))

    def chunk_of(index: int, text: str | None) -> str:
        return chunk(index, {"content": text}) if text else chunk(index, {}, requests[index].finish_reason)

    for index in range(len(requests)):
        yield chunk(index, {"role": "assistant", "content": ""})
    try:
        if first[1] != "":
            yield chunk_of(*first)
        async for index, text in texts:
            if text != "":
                yield chunk_of(index, text)
    except ServiceError as error:
        # The status is already sent. OpenAI's clients raise what is under "error"; [DONE] would claim success.
        yield f"data: {json.dumps(error.body())}\n\n"
        return
    if with_usage:
        yield event({"choices": [], "usage": _usage(requests)})
    yield "data: [DONE]\n\n"


class EventStream(Response):
    """Send server-sent events. However it ends, their source is closed at once, not at the next garbage collection."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], source: AsyncGenerator[Any, None]):
        super().__init__(None, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.events, self.source = events, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self.source), contextlib.aclosing(self.events):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self.events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
