"""The interface between a model and the service: continue conversations with images, one batch at a time.

The service depends on this interface only, and a model needs no knowledge of HTTP.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

ROLES = ("system", "user", "assistant")


class UnsupportedRequest(ValueError):
    """A model cannot answer a request, for example one with two images when it takes one.

    The client receives the message unchanged, with status 422. So the message is about the request only, and contains
    nothing about this machine. Every other exception of a model counts as a failure of the service and is logged.
    """


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Images are RGB and upright, of any size, and come before the text."""

    role: str
    text: str
    images: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class GenerationRequest:
    """A conversation that ends with a user turn, and how to continue it.

    max_new_tokens  at least 1; the model stops there, or earlier at the end of its turn
    temperature     0 takes the most likely token
    top_p           sample among the most likely tokens whose probabilities add up to this value
    seed            the same request with the same seed gives the same text, whatever else is in its batch
    """

    messages: tuple[Message, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None


class ServedModel(Protocol):
    """A trained model as the service uses it.

    name            how clients refer to it
    context_length  most tokens of a prompt and its answer together
    """

    name: str

    @property
    def context_length(self) -> int: ...

    def count_tokens(self, request: GenerationRequest) -> int:
        """Return the number of tokens of the prompt, images included.

        May be called from any thread, also while `generate` runs. Raise UnsupportedRequest for a request that the
        model can never answer. Count a prompt that is too long like any other: the service compares with
        `context_length`.
        """
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        """Answer a batch: yield at each step the new text of every row, None for a row that has ended.

        A string is the text of one token. It may be empty (half a character, for example), and it is counted. So a row
        yields at most `max_new_tokens` strings; the token that ends a turn yields none. After its first None a row
        yields only None; a last step with None in every row is optional. No row's text depends on the other rows.

        Called from one thread, one batch after the other. When all clients of a batch have left, the iterator is
        closed early, as a generator is, and must release its memory.
        """
        ...
