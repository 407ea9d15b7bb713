"""What a service speaks to: anything that continues a conversation with pictures, a batch at a time.

The service knows no model, and a model knows no service; this page is all that either knows of the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

ROLES = ("system", "user", "assistant")


class Refusal(ValueError):
    """A Speaker cannot take a request, and nobody but who sent it can change that: two pictures where one fits, say.

    Its sentence goes to the client word for word (status 422). So it speaks of the request, and of nothing of this
    machine. Whatever else a Speaker raises is a fault of the service, and its words stay here.
    """


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Pictures are RGB and upright, any size, and stand before the text."""

    role: str
    text: str
    images: tuple[Image.Image, ...] = ()


@dataclass(frozen=True)
class Request:
    """A conversation that ends with the user's turn, and how it is to be continued.

    max_new_tokens  at least 1; a Speaker stops there, or earlier at its own end of turn
    temperature     0 takes the likeliest token
    top_p           sample among the likeliest tokens that together reach this probability
    seed            the same request with the same seed gives the same text, whatever else is in its batch
    """

    messages: tuple[Message, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None


class Speaker(Protocol):
    """A trained model as a service sees it.

    name      what clients call it
    longest   tokens that a prompt and its answer may have together
    """

    name: str
    longest: int

    def count(self, request: Request) -> int:
        """Tokens of the prompt, pictures included.

        Called from any thread, also while `speak` runs. Raises Refusal for a request that it could never answer; but a
        prompt that is merely too long is counted like any other, for the service holds it against `longest`.
        """
        ...

    def speak(self, requests: Sequence[Request]) -> Iterator[list[str | None]]:
        """Answer a batch: one item a step, with what every row says newly, or None for a row that has ended.

        A string is one token's worth of text: it may be empty (half a letter, say), and it is counted. So a row gives
        at most `max_new_tokens` strings; the token that ends a turn gives none. Once None, a row stays None; a step
        with None in every row may come last or be left out. No row's text depends on the other rows.

        Called from one thread, one batch after the other. When nobody waits for any row any more the iterator is
        closed in the midst (as a generator is), and must let go of what it holds.
        """
        ...
