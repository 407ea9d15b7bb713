"""All paths of the service. A route validates its request, then answers it.

Bodies are read by hand: FastAPI would list each of a million errors, and would write files to disk.
"""

from typing import Any

from fastapi import FastAPI
from PIL import Image
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from shared.serving.answers import Answer
from shared.serving.attention import AttentionBody, attend
from shared.serving.chat_completions import complete_chat, list_models, show_model
from shared.serving.errors import AsciiJSONResponse, ServiceError
from shared.serving.forms import read_image_form
from shared.serving.image_texts import bytes_from_text
from shared.serving.schemas import (
    CaptionForm,
    ChatBody,
    CompletionBody,
    GenerationFields,
    QuestionForm,
    parse_form,
    parse_json,
)
from shared.serving.served_model import Message
from shared.serving.service import Service


def add_routes(app: FastAPI, service: Service) -> None:
    """Add every path of the service to the application."""

    @app.get("/health", summary="is the service ready?")
    async def health() -> Response:
        return service.health()

    @app.get("/metrics", summary="Prometheus")
    async def metrics() -> Response:
        return service.metrics_page()

    @app.post("/caption", summary="describe an image")
    async def caption(http: HTTPRequest) -> Response:
        data, fields = await read_image_form(http)
        form = parse_form(CaptionForm, fields)
        answer = await answer_about_image(service, data, service.settings.caption_prompt, form)
        return answer_response({"caption": answer.text}, answer)

    @app.post("/question", summary="answer a question about an image")
    async def question(http: HTTPRequest) -> Response:
        data, fields = await read_image_form(http)
        form = parse_form(QuestionForm, fields)
        answer = await answer_about_image(service, data, form.question, form)
        return answer_response({"answer": answer.text}, answer)

    @app.post("/chat", summary="one turn of a conversation")
    async def chat(http: HTTPRequest) -> Response:
        return await chat_turn(service, parse_json(ChatBody, await read_json_body(http)))

    @app.post("/v1/chat/completions", summary="OpenAI's chat completions")
    async def complete(http: HTTPRequest) -> Response:
        return await complete_chat(parse_json(CompletionBody, await read_json_body(http)), service.answers)

    @app.post("/attention", summary="where the model attends in an image")
    async def attention(http: HTTPRequest) -> Response:
        return await attend(parse_json(AttentionBody, await read_json_body(http)), service.answers)

    @app.get("/v1/models", summary="the model here")
    async def models() -> Response:
        return list_models(service.answers)

    @app.get("/v1/models/{name:path}", summary="the model of this name")
    async def model(name: str) -> Response:
        return show_model(name, service.answers)


async def answer_about_image(service: Service, data: bytes, text: str, fields: GenerationFields) -> Answer:
    """Answer one user turn: an image and a text."""
    image = await service.answers.images.decode(data)
    messages = (Message("user", text, (image,)),)
    prepared = await service.answers.prepare(messages, fields, fields.max_new_tokens)
    return await prepared.answer()


async def chat_turn(service: Service, body: ChatBody) -> Response:
    """Answer one turn of a conversation, which is stored only after the answer is complete."""
    with service.answers.conversations.turn(body.conversation_id) as turn:
        images: tuple[Image.Image, ...] = ()
        if (text := body.image) is not None:
            data = await service.answers.threads.run(lambda: bytes_from_text(text))
            images = (await service.answers.images.decode(data),)
        message = Message("user", body.message, images)
        prepared = await service.answers.prepare(
            (*turn.history, message), body, body.max_new_tokens, truncation=body.truncation
        )
        answer = await prepared.answer()
        turn.add(message, Message("assistant", answer.text), dropped=prepared.dropped_messages)
    content: dict[str, Any] = {"conversation_id": turn.conversation_id, "answer": answer.text}
    if prepared.dropped_messages:
        content["dropped_messages"] = prepared.dropped_messages
    return answer_response(content, answer)


def answer_response(content: dict[str, Any], answer: Answer) -> Response:
    """Return the content with the answer's finish reason and usage."""
    return AsciiJSONResponse({**content, "finish_reason": answer.finish_reason, "usage": answer.usage})


async def read_json_body(http: HTTPRequest) -> bytes:
    """Return the body of a JSON request. Raises ServiceError wrong_content_type.

    Any web page can make a browser send text or a form to a service on the same machine, but JSON only with permission.
    """
    content_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ServiceError("wrong_content_type", "expected JSON with the header content-type: application/json")
    return await http.body()
