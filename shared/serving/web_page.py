"""The page at `/`: choose an image, ask a question, watch the answer arrive, see where the model attends.

The page is plain HTML, CSS and JavaScript in static/, without a build step. It loads nothing from other hosts, and its
Content-Security-Policy forbids the browser to. It uses the same paths as every other client, and `GET /model`.
"""

import base64
import io
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from PIL import Image
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from shared.serving.answers import AnswerService
from shared.serving.errors import AsciiJSONResponse
from shared.serving.model_card import AttentiveModel, Sample, card_of
from shared.serving.service import Service

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
FILES = {
    "/" if path.name == "index.html" else f"/static/{path.name}": path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in MEDIA_TYPES
}
MODEL_PATH = "/model"
PATHS = (*FILES, MODEL_PATH)
"""Answered in every state of the service, so that the page can report it."""
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",  # samples, and an image that the user chose
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",  # no other page can put this one into a frame and catch clicks
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page's files and `/model` to the application."""
    for path, file in FILES.items():
        app.add_route(path, _responder(file), methods=["GET"], include_in_schema=False)

    @app.get(MODEL_PATH, summary="what the model is for, with examples")
    async def model() -> Response:
        return AsciiJSONResponse(describe_model(service.answers))


def _responder(file: Path) -> Any:
    content, media_type = file.read_bytes(), MEDIA_TYPES[file.suffix]

    async def respond(http: HTTPRequest) -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return respond


def describe_model(answers: AnswerService) -> dict[str, Any]:
    """Return the model's card as JSON, with the limits that a client can check before it sends an image."""
    model, settings = answers.model, answers.settings
    card = card_of(model)
    return {
        "name": model.name,
        "scope": card.scope,
        "accepts_images": card.accepts_images,
        "accepts_questions": card.accepts_questions,
        "follow_ups": card.follow_ups,
        "attention": card.accepts_images and isinstance(model, AttentiveModel),
        "caption_prompt": settings.caption_prompt,
        "questions": card.questions,
        "samples": [_describe_sample(sample) for sample in card.samples],
        "limits": {"body_bytes": settings.max_body_bytes, "pixels": settings.max_pixels},
    }


def _describe_sample(sample: Sample) -> dict[str, Any]:
    return {"image": data_url(sample.image), "description": sample.description, "questions": sample.questions}


def data_url(image: Image.Image) -> str:
    """Return an image as the `data:` URL of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
