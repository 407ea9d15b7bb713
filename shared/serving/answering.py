"""From a request to an answer: is it in bounds, and then: what does the model say?"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import anyio
from PIL import Image

from shared.serving.batching import Batcher
from shared.serving.conversations import Conversations
from shared.serving.images import picture
from shared.serving.metrics import Metrics
from shared.serving.problems import Problem
from shared.serving.schema import Sampling
from shared.serving.served_model import Message, Refusal, Request, Speaker
from shared.serving.settings import Settings

# No vocabulary's tokens are longer than this on the average of a text worth reading: what has more characters than so
# many for each token of context is refused unread.
CHARACTERS_OF_A_TOKEN = 16
Made = TypeVar("Made")


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it took. `finish_reason` is OpenAI's: "length" when it was cut off, else "stop"."""

    text: str
    finish_reason: str
    usage: dict[str, int]


class Answering:
    """The request's way in turn, shared by every path of the service. Made and used inside one event loop."""

    def __init__(self, speaker: Speaker, settings: Settings, metrics: Metrics):
        self.speaker, self.settings, self.metrics = speaker, settings, metrics
        self.batcher = Batcher(speaker, settings, metrics)
        self.conversations = Conversations(
            most=settings.conversations,
            most_bytes=settings.conversation_bytes,
            seconds=settings.conversation_seconds,
        )
        # Decoding and counting are work: two threads at most, so that a rush of large pictures takes turns.
        self._hands = anyio.CapacityLimiter(2)

    async def aside(self, work: Callable[[], Made]) -> Made:
        """Do some work beside the event loop."""
        return await anyio.to_thread.run_sync(work, limiter=self._hands, abandon_on_cancel=True)

    async def picture(self, read: Callable[[], bytes], param: str) -> Image.Image:
        return await self.aside(lambda: picture(read(), self.settings, param=param))

    async def prepare(self, messages: Sequence[Message], sampling: Sampling, new_tokens: int | None) -> "Prepared":
        """Hold a conversation against the limits. Raises Problem context_length_exceeded, refused."""
        longest, most = self.speaker.longest, self.settings.new_tokens
        if new_tokens is not None and new_tokens > most:
            raise _too_long(f"{new_tokens:,} new tokens were asked for; {most:,} are given at most")
        characters = sum(len(message.text) for message in messages)
        if characters > CHARACTERS_OF_A_TOKEN * longest:
            raise _too_long(f"{characters:,} characters are more than {longest:,} tokens could hold")
        request = Request(
            tuple(messages),
            max_new_tokens=new_tokens or 1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        try:
            prompt = await self.aside(lambda: self.speaker.count(request))
        except Refusal as refusal:
            raise Problem("refused", str(refusal)) from None
        except Exception as error:
            raise Problem("model_failed", "the model could not read this") from error
        if prompt + request.max_new_tokens > longest:
            asked = f" and {new_tokens:,} new ones" if new_tokens else ""
            raise _too_long(f"{prompt:,} tokens{asked} are more than the {longest:,} that the model can hold")
        room = new_tokens or min(most, longest - prompt)
        return Prepared(self, replace(request, max_new_tokens=room), prompt)


@dataclass
class Prepared:
    """A request that may be answered. `said` counts the tokens of its answer so far."""

    of: Answering
    request: Request
    prompt_tokens: int
    said: int = 0

    async def texts(self) -> AsyncIterator[str]:
        """The answer, token by token. Close it to leave early (contextlib.aclosing)."""
        began, metrics = time.monotonic(), self.of.metrics
        metrics.prompt_tokens.inc(self.prompt_tokens)
        async with contextlib.aclosing(self.of.batcher.stream(self.request)) as texts:
            async for text in texts:
                if not self.said:
                    metrics.first_text.observe(time.monotonic() - began)
                self.said += 1
                metrics.answer_tokens.inc()
                yield text

    async def answer(self) -> Answer:
        """The whole answer."""
        async with contextlib.aclosing(self.texts()) as texts:
            text = "".join([text async for text in texts])
        return Answer(text, self.finish_reason, self.usage)

    @property
    def finish_reason(self) -> str:
        return "length" if self.said >= self.request.max_new_tokens else "stop"

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.said,
            "total_tokens": self.prompt_tokens + self.said,
        }


def _too_long(what: str) -> Problem:
    return Problem("context_length_exceeded", f"{what}; send or ask for less, or begin a new conversation")
