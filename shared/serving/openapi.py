"""The description of all paths at /openapi.json, with bodies generated from the models that validate them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shared.serving.attention import AttentionBody
from shared.serving.schemas import Body, CaptionForm, ChatBody, CompletionBody, QuestionForm

FORM, JSON = "multipart/form-data", "application/json"
BODIES: dict[str, tuple[str, type[Body]]] = {
    "/caption": (FORM, CaptionForm),
    "/question": (FORM, QuestionForm),
    "/chat": (JSON, ChatBody),
    "/v1/chat/completions": (JSON, CompletionBody),
    "/attention": (JSON, AttentionBody),
}
FILE = {"type": "string", "format": "binary"}


def openapi_description(app: FastAPI, scope: str = "") -> dict[str, Any]:
    """Return the OpenAPI description of the application, which states the scope of its model.

    FastAPI does not know the bodies, because the routes read them by hand; they are added here.
    """
    description = get_openapi(title=app.title, version=app.version, description=scope, routes=app.routes)
    definitions = description.setdefault("components", {}).setdefault("schemas", {})
    for path, (media_type, body_type) in BODIES.items():
        schema = body_type.model_json_schema(ref_template="#/components/schemas/{model}")
        definitions |= schema.pop("$defs", {})
        if media_type == FORM:
            schema["properties"] = {"image": FILE, **schema["properties"]}
            schema["required"] = ["image", *schema.get("required", [])]
        body = {"required": True, "content": {media_type: {"schema": schema}}}
        description["paths"][path]["post"]["requestBody"] = body
    return description
