"""One web service over any trained model: see README.md.

The names are loaded at their first use: the process that decodes images imports parts of this package, and a web
framework is none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.serving.app import create_app
    from shared.serving.model_card import ImageAttention, ModelCard, Sample
    from shared.serving.served_model import ROLES, GenerationRequest, Message, ServedModel, UnsupportedRequest
    from shared.serving.server import serve
    from shared.serving.settings import Settings

__all__ = [
    "ROLES",
    "GenerationRequest",
    "ImageAttention",
    "Message",
    "ModelCard",
    "Sample",
    "ServedModel",
    "Settings",
    "UnsupportedRequest",
    "create_app",
    "serve",
]

_MODULES = {
    "create_app": "app",
    "serve": "server",
    "Settings": "settings",
    **dict.fromkeys(("ImageAttention", "ModelCard", "Sample"), "model_card"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'served_model')}"), name)
