"""Dynamic batching: answer requests that arrive at nearly the same time together.

One thread alone calls the model. It takes the first waiting request, waits a moment for others, and answers them as
one batch; meanwhile the next batch gathers. The event loop never waits for the model.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from shared.serving.errors import ServiceError
from shared.serving.metrics import Metrics
from shared.serving.served_model import GenerationRequest, ServedModel
from shared.serving.settings import Settings

LOG = logging.getLogger(__name__)
END = None


class _Row:
    """One request of a batch: the thread puts texts into its queue, the event loop takes them out."""

    def __init__(self, request: GenerationRequest):
        self.request = request
        self.texts: asyncio.Queue[str | ServiceError | None] = asyncio.Queue()
        self.text_count = 0
        self.ended = False  # set by the thread
        self.abandoned = False  # set by the event loop when no client waits for the answer any more


class Batcher:
    """Answer requests with a model, several at a time. Create it inside the event loop that will use it.

    settings  max_batch_size, batch_wait, max_waiting and answer_timeout are used
    """

    def __init__(self, model: ServedModel, settings: Settings, metrics: Metrics):
        self.model, self.settings, self.metrics = model, settings, metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._step_started: float | None = None
        self._thread = threading.Thread(target=self._run, name="served-model", daemon=True)
        self._thread.start()

    @property
    def stalled(self) -> bool:
        """Whether the model has computed one step for longer than a whole answer may take."""
        started = self._step_started
        return started is not None and time.monotonic() - started > self.settings.answer_timeout

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[str, None]:
        """Yield the answer's texts, token by token.

        Close the iterator (contextlib.aclosing) to leave early: the row is then abandoned, and a batch whose rows are
        all abandoned is stopped.

        Raises ServiceError too_many_requests, stopping, model_failed, too_slow.
        """
        deadline = self._loop.time() + self.settings.answer_timeout
        row = self._enqueue(request)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        text = await row.texts.get()
                except TimeoutError:
                    raise ServiceError(
                        "too_slow",
                        f"the answer was not finished within {self.settings.answer_timeout:g} s; "
                        "request fewer tokens, or try again later",
                    ) from None
                if text is END:
                    return
                if isinstance(text, ServiceError):
                    raise text
                yield text
        finally:
            self._abandon(row)

    def stop(self) -> None:
        """End all rows, waiting or in progress, with the error `stopping`; wait up to a second for the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=1)

    def _enqueue(self, request: GenerationRequest) -> _Row:
        row = _Row(request)
        with self._changed:
            if self._stopping:
                raise _stopping_error()
            if len(self._waiting) >= self.settings.max_waiting:
                raise ServiceError(
                    "too_many_requests",
                    f"{self.settings.max_waiting} requests are already waiting; try again in a moment",
                )
            self._waiting.append(row)
            self.metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        return row

    def _abandon(self, row: _Row) -> None:
        row.abandoned = True
        with self._changed:
            if row in self._waiting:
                self._waiting.remove(row)
                self.metrics.waiting.set(len(self._waiting))

    # The methods below run in the thread.

    def _run(self) -> None:
        while rows := self._next_batch():
            self.metrics.batch_rows.observe(len(rows))
            self._answer(rows)
        with self._changed:
            remaining = list(self._waiting)
            self._waiting.clear()
        self._deliver([(row, _stopping_error()) for row in remaining])

    def _next_batch(self) -> list[_Row]:
        """Wait for a request, then a moment longer for others; return an empty list when the service stops."""
        with self._changed:
            while not self._stopping:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.settings.max_batch_size or self._stopping,
                    self.settings.batch_wait,
                )
                size = min(self.settings.max_batch_size, len(self._waiting))
                rows = [self._waiting.popleft() for _ in range(size)]
                self.metrics.waiting.set(len(self._waiting))
                if rows:  # all clients may have left in that moment
                    return rows
        return []

    def _answer(self, rows: Sequence[_Row]) -> None:
        try:
            self._generate(rows)
        except Exception:
            # The exception's text stays in the log, because it may name files of this machine.
            LOG.exception("the model failed at a batch of %d", len(rows))
            self.metrics.model_errors.inc()
            open_rows = [row for row in rows if not row.ended and not row.abandoned]
            untouched = [row for row in open_rows if not row.text_count] if len(rows) > 1 else []
            error = ServiceError("model_failed", "the model could not answer this; other requests are not affected")
            self._deliver([(row, error) for row in open_rows if row not in untouched])
            # One bad request must not fail the others of its batch: rows without any text yet run again alone.
            for row in untouched:
                self._answer([row])

    def _generate(self, rows: Sequence[_Row]) -> None:
        self._step_started = time.monotonic()
        steps = iter(self.model.generate([row.request for row in rows]))
        try:
            for texts in steps:
                self._step_started = time.monotonic()
                if len(texts) != len(rows):
                    raise RuntimeError(f"the model returned {len(texts)} texts for {len(rows)} requests")
                self._deliver(list(zip(rows, texts, strict=True)))
                if self._stopping:
                    self._deliver([(row, _stopping_error()) for row in rows])
                if all(row.ended or row.abandoned for row in rows):
                    return
            self._deliver([(row, END) for row in rows])
        finally:
            self._step_started = None
            if close := getattr(steps, "close", None):
                close()

    def _deliver(self, texts: Sequence[tuple[_Row, str | ServiceError | None]]) -> None:
        """Hand each row its new text in one call to the event loop; rows that have ended are skipped."""
        open_rows = [(row, text) for row, text in texts if not row.ended]
        for row, text in open_rows:
            row.text_count += isinstance(text, str)
            row.ended = not isinstance(text, str)
        if open_rows:
            try:
                self._loop.call_soon_threadsafe(_put, open_rows)
            except RuntimeError:  # the loop is closed, and no client waits
                self._stopping = True


def _put(texts: Sequence[tuple[_Row, str | ServiceError | None]]) -> None:
    for row, text in texts:
        row.texts.put_nowait(text)


def _stopping_error() -> ServiceError:
    return ServiceError("stopping", "the service is shutting down; try again when it is back")
