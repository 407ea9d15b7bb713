"""The state of a service: the model while it loads, while it answers, and while the service stops."""

import asyncio
from collections.abc import Callable

from starlette.responses import Response

from shared.serving.answers import AnswerService
from shared.serving.errors import AsciiJSONResponse, ServiceError
from shared.serving.metrics import Metrics
from shared.serving.model_card import card_of
from shared.serving.served_model import ServedModel
from shared.serving.settings import Settings


class Service:
    """Hold the model behind the routes, and the state that /health reports.

    state    "starting", "ready" or "stopping"
    settled  set when loading has ended, with or without success
    failure  the exception of loading the model; the service then stops
    """

    def __init__(self, load: Callable[[], ServedModel], settings: Settings):
        self.load, self.settings, self.metrics = load, settings, Metrics()
        self.state = "starting"
        self.settled = asyncio.Event()
        self.failure: Exception | None = None
        self._answers: AnswerService | None = None

    async def start(self) -> None:
        """Load the model in a thread, so that /health answers meanwhile."""
        try:
            model = await asyncio.to_thread(self.load)
            self._answers = AnswerService(model, self.settings, self.metrics)
            if self.state == "starting":
                self.state = "ready"
        except Exception as error:
            self.state, self.failure = "stopping", error
        finally:
            self.settled.set()

    @property
    def answers(self) -> AnswerService:
        """The service that answers requests. Raises ServiceError `starting` while the model is loading."""
        if self._answers is None:
            raise ServiceError("starting", "the service is starting; try again in a moment")
        return self._answers

    @property
    def scope(self) -> str:
        """What the model states about its training data; empty while it loads, and for a model without a card."""
        return card_of(self._answers.model).scope if self._answers else ""

    def close(self) -> None:
        """Refuse new requests; those in progress are answered."""
        self.state = "stopping"

    def stop(self) -> None:
        """Refuse new requests and end those in progress."""
        self.close()
        if self._answers:
            self._answers.stop()

    async def end_processes(self) -> None:
        """End the processes that decode images."""
        if self._answers:
            await self._answers.images.close()

    def health(self) -> Response:
        """Return status 200 when requests are answered, else 503 and the reason; and the scope of the model."""
        stalled = self._answers is not None and self._answers.stalled
        state = "stalled" if stalled else self.state
        scope = {"scope": self.scope} if self.scope else {}
        return AsciiJSONResponse({"status": state, **scope}, 200 if state == "ready" else 503)

    def metrics_page(self) -> Response:
        """Return all measurements for Prometheus."""
        if self._answers:
            conversations = self._answers.conversations
            conversations.remove_expired()
            self.metrics.conversations.set(len(conversations))
            self.metrics.conversation_bytes.set(conversations.bytes)
        return self.metrics.page()
