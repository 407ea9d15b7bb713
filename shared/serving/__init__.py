"""One web service over any trained model: see README.md."""

from shared.serving.app import create_app
from shared.serving.serve import serve
from shared.serving.served_model import ROLES, GenerationRequest, Message, ServedModel, UnsupportedRequest
from shared.serving.settings import Settings

__all__ = [
    "ROLES",
    "GenerationRequest",
    "Message",
    "ServedModel",
    "Settings",
    "UnsupportedRequest",
    "create_app",
    "serve",
]
