"""From a validated request to its answer: check the limits on tokens, then generate."""

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from shared.serving.batching import Batcher
from shared.serving.conversations import ConversationStore
from shared.serving.errors import ServiceError
from shared.serving.image_decoder import ImageDecoder
from shared.serving.metrics import Metrics
from shared.serving.schemas import SamplingFields
from shared.serving.served_model import GenerationRequest, Message, ServedModel, UnsupportedRequest
from shared.serving.settings import Settings
from shared.serving.threads import Threads

MAX_CHARACTERS_PER_TOKEN = 16
"""No tokenizer's tokens are longer than this on average in a sensible text: a longer text is refused uncounted."""


@dataclass(frozen=True)
class Answer:
    """A complete answer. `finish_reason` is OpenAI's: "length" when the answer was cut off, else "stop"."""

    text: str
    finish_reason: str
    usage: dict[str, int]


class AnswerService:
    """Prepare and answer requests for all paths of the service. Create it inside the event loop that uses it."""

    def __init__(self, model: ServedModel, settings: Settings, metrics: Metrics):
        self.model, self.settings, self.metrics = model, settings, metrics
        self.batcher = Batcher(model, settings, metrics)
        self.conversations = ConversationStore(
            max_conversations=settings.max_conversations,
            max_bytes=settings.max_conversation_bytes,
            lifetime=settings.conversation_lifetime,
        )
        self.threads, self.images = Threads(metrics), ImageDecoder(settings, metrics)

    @property
    def stalled(self) -> bool:
        """Whether requests wait for a step of the model, or for threads, longer than a whole answer may take."""
        return self.batcher.stalled or self.threads.all_busy_for(self.settings.answer_timeout)

    def stop(self) -> None:
        """End the requests in progress."""
        self.batcher.stop()
        self.threads.close()

    async def prepare(
        self, messages: Sequence[Message], sampling: SamplingFields, new_tokens: int | None
    ) -> "PreparedRequest":
        """Check a conversation against the limits on tokens.

        new_tokens  length of the answer; None: as long as limits and context allow

        Raises ServiceError context_length_exceeded, refused, model_failed.
        """
        context_length, max_new_tokens = self.model.context_length, self.settings.max_new_tokens
        if new_tokens is not None and new_tokens > max_new_tokens:
            raise _too_long(f"{new_tokens:,} new tokens are more than the {max_new_tokens:,} allowed")
        characters = sum(len(message.text) for message in messages)
        if characters > MAX_CHARACTERS_PER_TOKEN * context_length:
            raise _too_long(f"{characters:,} characters do not fit into {context_length:,} tokens")
        request = GenerationRequest(
            tuple(messages),
            max_new_tokens=new_tokens or 1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        try:
            prompt_tokens = await self.threads.run(lambda: self.model.count_tokens(request))
        except UnsupportedRequest as error:
            raise ServiceError("refused", str(error)) from None
        except Exception as error:
            raise ServiceError("model_failed", "the model could not process this request") from error
        if prompt_tokens + request.max_new_tokens > context_length:
            answer = f" and {new_tokens:,} new ones" if new_tokens else ""
            raise _too_long(
                f"{prompt_tokens:,} tokens{answer} are more than the model's context length of {context_length:,}"
            )
        limit = new_tokens or min(max_new_tokens, context_length - prompt_tokens)
        return PreparedRequest(self, replace(request, max_new_tokens=limit), prompt_tokens)


@dataclass
class PreparedRequest:
    """A request within the limits. `answer_tokens` counts the tokens generated so far."""

    service: AnswerService
    request: GenerationRequest
    prompt_tokens: int
    answer_tokens: int = 0

    async def texts(self) -> AsyncGenerator[str, None]:
        """Yield the answer token by token. Close the iterator to leave early (contextlib.aclosing)."""
        started, metrics = time.monotonic(), self.service.metrics
        metrics.prompt_tokens.inc(self.prompt_tokens)
        async with contextlib.aclosing(self.service.batcher.stream(self.request)) as texts:
            async for text in texts:
                if not self.answer_tokens:
                    metrics.first_text.observe(time.monotonic() - started)
                self.answer_tokens += 1
                metrics.answer_tokens.inc()
                yield text

    async def answer(self) -> Answer:
        """Return the complete answer."""
        async with contextlib.aclosing(self.texts()) as texts:
            text = "".join([text async for text in texts])
        return Answer(text, self.finish_reason, self.usage)

    @property
    def finish_reason(self) -> str:
        return "length" if self.answer_tokens >= self.request.max_new_tokens else "stop"

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "total_tokens": self.prompt_tokens + self.answer_tokens,
        }


def _too_long(problem: str) -> ServiceError:
    return ServiceError(
        "context_length_exceeded", f"{problem}; send or request fewer tokens, or begin a new conversation"
    )
