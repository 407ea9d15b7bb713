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
from shared.serving.stop_sequences import StopSequences
from shared.serving.threads import Threads
from shared.serving.truncation import leave_out_oldest

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
        self,
        messages: Sequence[Message],
        sampling: SamplingFields,
        new_tokens: int | None,
        *,
        truncation: str | None = None,
        stop: Sequence[str] = (),
    ) -> "PreparedRequest":
        """Check a conversation against the limits on tokens.

        new_tokens  length of the answer; None: as long as limits and context allow
        truncation  that of Settings; None: the service's own
        stop        texts at which the answer ends

        Raises ServiceError context_length_exceeded, refused, model_failed.
        """
        context_length, max_new_tokens = self.model.context_length, self.settings.max_new_tokens
        if new_tokens is not None and new_tokens > max_new_tokens:
            raise _too_long(f"{new_tokens:,} new tokens are more than the {max_new_tokens:,} allowed")
        request = GenerationRequest(
            tuple(messages),
            max_new_tokens=new_tokens or 1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
        try:
            if (truncation or self.settings.truncation) == "auto":
                # An answer of open length gets at least a quarter of the context.
                max_prompt_tokens = context_length - (new_tokens or min(max_new_tokens, context_length // 4))
                request = await self.threads.run(lambda: self._shorten(request, max_prompt_tokens))
            if (characters := _characters(request.messages)) > MAX_CHARACTERS_PER_TOKEN * context_length:
                raise _too_long(f"{characters:,} characters do not fit into {context_length:,} tokens")
            prompt_tokens = await self.threads.run(lambda: self.model.count_tokens(request))
        except ServiceError:
            raise
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
        dropped = len(messages) - len(request.messages)
        return PreparedRequest(self, replace(request, max_new_tokens=limit), prompt_tokens, tuple(stop), dropped)

    def _shorten(self, request: GenerationRequest, max_prompt_tokens: int) -> GenerationRequest:
        """Leave out the oldest turns until the prompt has at most this many tokens."""

        def fits(messages: Sequence[Message]) -> bool:
            if _characters(messages) > MAX_CHARACTERS_PER_TOKEN * self.model.context_length:
                return False
            return self.model.count_tokens(replace(request, messages=tuple(messages))) <= max_prompt_tokens

        return replace(request, messages=tuple(leave_out_oldest(request.messages, fits)))


@dataclass
class PreparedRequest:
    """A request within the limits.

    dropped_messages  number of messages that were left out to fit into the context
    answer_tokens     generated so far
    stopped           whether the answer has ended at one of the texts in `stop`
    """

    service: AnswerService
    request: GenerationRequest
    prompt_tokens: int
    stop: tuple[str, ...] = ()
    dropped_messages: int = 0
    answer_tokens: int = 0
    stopped: bool = False

    def choices(self, count: int) -> list["PreparedRequest"]:
        """Return this request several times, with seeds that count up from its own."""
        seed = self.request.seed
        # Sums beyond 64 bits begin again at the lowest.
        seeds = [None if seed is None else (seed + number + 2**63) % 2**64 - 2**63 for number in range(count)]
        return [replace(self, request=replace(self.request, seed=each)) for each in seeds]

    async def texts(self) -> AsyncGenerator[str, None]:
        """Yield the answer token by token. Close the iterator to leave early (contextlib.aclosing)."""
        started, metrics = time.monotonic(), self.service.metrics
        metrics.prompt_tokens.inc(self.prompt_tokens)
        stop = StopSequences(self.stop)
        async with contextlib.aclosing(self.service.batcher.stream(self.request)) as texts:
            async for text in texts:
                if not self.answer_tokens:
                    metrics.first_text.observe(time.monotonic() - started)
                self.answer_tokens += 1
                metrics.answer_tokens.inc()
                yield stop.write(text)
                if stop.reached:
                    self.stopped = True
                    return
        if rest := stop.close():
            yield rest

    async def answer(self) -> Answer:
        """Return the complete answer."""
        async with contextlib.aclosing(self.texts()) as texts:
            text = "".join([text async for text in texts])
        return Answer(text, self.finish_reason, self.usage)

    @property
    def finish_reason(self) -> str:
        complete = self.stopped or self.answer_tokens < self.request.max_new_tokens
        return "stop" if complete else "length"

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "total_tokens": self.prompt_tokens + self.answer_tokens,
        }


def _characters(messages: Sequence[Message]) -> int:
    return sum(len(message.text) for message in messages)


def _too_long(problem: str) -> ServiceError:
    return ServiceError(
        "context_length_exceeded",
        f'{problem}; send or request fewer tokens, begin a new conversation, or let truncation "auto" leave out the '
        "oldest turns",
    )
