"""What /openapi.json says of the bodies that are read by hand, made from the very models that read them."""

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shared.serving.schema import Body, CaptionForm, ChatBody, CompletionBody, QuestionForm

FORM, JSON = "multipart/form-data", "application/json"
BODIES: dict[str, tuple[str, type[Body]]] = {
    "/caption": (FORM, CaptionForm),
    "/question": (FORM, QuestionForm),
    "/chat": (JSON, ChatBody),
    "/v1/chat/completions": (JSON, CompletionBody),
}
FILE = {"type": "string", "format": "binary"}


def describe(app: FastAPI) -> dict:
    """The application in OpenAPI's words."""
    described = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = described.setdefault("components", {}).setdefault("schemas", {})
    for path, (media_type, kind) in BODIES.items():
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        parts |= schema.pop("$defs", {})
        if media_type == FORM:
            schema["properties"] = {"image": FILE, **schema["properties"]}
            schema["required"] = ["image", *schema.get("required", [])]
        body = {"required": True, "content": {media_type: {"schema": schema}}}
        described["paths"][path]["post"]["requestBody"] = body
    return described
