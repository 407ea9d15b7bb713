"""OpenAI's chat completions, as far as a model that sees and speaks can honor them.

What is said here is what the official client expects: https://platform.openai.com/docs/api-reference/chat
"""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.serving.answering import Answering, Prepared
from shared.serving.images import from_data_url
from shared.serving.problems import JSON, Problem
from shared.serving.schema import ChatMessage, CompletionBody, ImagePart, TextPart
from shared.serving.served_model import Message


def models(answering: Answering) -> Response:
    """GET /v1/models: there is one."""
    name = answering.speaker.name
    return JSON({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "here"}]})


async def complete(body: CompletionBody, answering: Answering) -> Response:
    """POST /v1/chat/completions. Raises Problem for whatever cannot be answered, also of a stream that has not begun."""
    if body.model != answering.speaker.name:
        raise Problem("model_not_found", f"the model here is {answering.speaker.name}; ask for it", param="model")
    messages = await _messages(body.messages, answering)
    prepared = await answering.prepare(messages, body, body.max_completion_tokens or body.max_tokens)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model}
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        texts = prepared.texts()
        # An answer that cannot begin has a status of its own; later there is only the stream to say so in.
        first = await anext(texts, None)
        return EventStream(_events(head, first, texts, prepared, with_usage=with_usage), texts)
    answer = await prepared.answer()
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    return JSON({**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage})


async def _messages(turns: list[ChatMessage], answering: Answering) -> list[Message]:
    if turns[-1].role != "user":
        raise Problem("invalid_request", "the last message must be the user's, for the next is ours", param="messages")
    pictures = sum(
        isinstance(part, ImagePart) for turn in turns if isinstance(turn.content, list) for part in turn.content
    )
    if pictures > answering.settings.images:
        raise Problem(
            "invalid_request", f"{pictures} images; {answering.settings.images} are taken at most", param="messages"
        )
    return [await _message(turn, f"messages.{number}", answering) for number, turn in enumerate(turns)]


async def _message(turn: ChatMessage, where: str, answering: Answering) -> Message:
    role = "system" if turn.role == "developer" else turn.role
    if isinstance(turn.content, str):
        return Message(role, turn.content)
    words, images = [], []
    for number, part in enumerate(turn.content):
        if isinstance(part, TextPart):
            words.append(part.text)
        elif role != "user":
            raise Problem("invalid_request", "only the user shows images", param=f"{where}.content.{number}")
        else:
            url, param = part.image_url.url, f"{where}.content.{number}.image_url"
            images.append(await answering.picture(lambda url=url, param=param: from_data_url(url, param=param), param))
    return Message(role, "\n".join(words), tuple(images))


async def _events(
    head: dict, first: str | None, texts: AsyncIterator[str], prepared: Prepared, *, with_usage: bool
) -> AsyncIterator[str]:
    """The answer as server-sent events: who speaks, what is said piece by piece, why it ended, what it took, [DONE]."""

    def chunk(delta: dict, finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return event({"choices": [choice]} | ({"usage": None} if with_usage else {}))

    def event(content: dict) -> str:
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **content})}\n\n"

    yield chunk({"role": "assistant", "content": ""})
    try:
        if first:
            yield chunk({"content": first})
        async for text in texts:
            if text:
                yield chunk({"content": text})
    except Problem as problem:
        # The status is long sent. OpenAI's clients raise what stands under "error", and [DONE] would be a lie.
        yield f"data: {json.dumps(problem.body())}\n\n"
        return
    yield chunk({}, prepared.finish_reason)
    if with_usage:
        yield event({"choices": [], "usage": prepared.usage})
    yield "data: [DONE]\n\n"


class EventStream(Response):
    """Server-sent events. However it ends, what they are made from is closed: at once, not when memory is next tidied."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], source: AsyncIterator[str]):
        super().__init__(None, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.events, self.source = events, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self.source), contextlib.aclosing(self.events):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in self.events:
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
