"""One service over any trained model: see README.md."""

from shared.serving.app import create_app
from shared.serving.serve import serve
from shared.serving.served_model import ROLES, Message, Refusal, Request, Speaker
from shared.serving.settings import Settings

__all__ = ["ROLES", "Message", "Refusal", "Request", "Settings", "Speaker", "create_app", "serve"]
