"""One service over any trained model: see README.md."""

from shared.serving.speaker import ROLES, Message, Refusal, Request, Speaker

__all__ = ["ROLES", "Message", "Refusal", "Request", "Speaker"]
