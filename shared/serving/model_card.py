"""What a model states about itself, for the page at `/`, `/health` and the API description. All of it is optional.

A `ServedModel` may have an attribute `card`, and a method `image_attention` that returns where it attended.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from PIL import Image

from shared.serving.served_model import GenerationRequest


@dataclass(frozen=True)
class Sample:
    """An image that suits the model, with questions about it.

    description  the image in words, for clients that cannot display it
    """

    image: Image.Image
    description: str
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelCard:
    """State what a model is for.

    scope              what the model was trained on, and which answers are therefore meaningless
    accepts_images     whether a conversation may have an image
    accepts_questions  whether an image may come with a question; a captioner only describes it
    follow_ups         whether the model was trained on earlier turns; else the page sends each question alone
    questions          example questions for any image, or for none
    samples            example images with their questions
    """

    scope: str = ""
    accepts_images: bool = True
    accepts_questions: bool = True
    follow_ups: bool = True
    questions: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class ImageAttention:
    """Hold where a model attended while it generated an answer.

    tokens   the text of each token of the answer
    regions  per image, the part of it that the model receives: left, top, right and bottom in [0, 1]
    weights  per image, the fraction of each token's attention that its patches receive
    """

    tokens: tuple[str, ...]
    regions: tuple[tuple[float, float, float, float], ...]
    weights: tuple[Float[np.ndarray, "tokens rows columns"], ...]


@runtime_checkable
class AttentiveModel(Protocol):
    """A served model that can report where it attended."""

    def image_attention(self, request: GenerationRequest, answer: str) -> ImageAttention:
        """Return the attention to the images of a conversation for an answer to it.

        May be called from any thread, also while `generate` runs. Raise UnsupportedRequest where there is none.
        """
        ...


def card_of(model: object) -> ModelCard:
    """Return the card of a served model; one without a card has the default."""
    card = getattr(model, "card", None)
    return card if isinstance(card, ModelCard) else ModelCard()
