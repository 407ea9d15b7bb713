"""Dynamic batching: requests that happen to come together are answered together.

One thread alone speaks to the model. It takes the first request that waits, gives others a moment to join, and
answers them as one batch; while it does, the next batch gathers. The event loop never waits for the model.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from shared.serving.metrics import Metrics
from shared.serving.problems import Problem
from shared.serving.served_model import Request, Speaker
from shared.serving.settings import Settings

LOG = logging.getLogger(__name__)
END = None


class _Row:
    """One request on its way through: the thread puts texts in, the event loop takes them out."""

    def __init__(self, request: Request):
        self.request = request
        self.texts: asyncio.Queue[str | Problem | None] = asyncio.Queue()
        self.said = 0
        self.over = False  # set by the thread
        self.gone = False  # set by the event loop: nobody waits for it any more


class Batcher:
    """Answers requests over a Speaker, several at a time. Start it inside the event loop that will ask.

    settings  rows, gather_seconds, waiting, seconds
    """

    def __init__(self, speaker: Speaker, settings: Settings, metrics: Metrics):
        self.speaker, self.settings, self.metrics = speaker, settings, metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._work, name="speaker", daemon=True)
        self._thread.start()

    @property
    def stalled(self) -> bool:
        """True when the model has been at a single step for longer than a whole answer may take."""
        began = self._step_began
        return began is not None and time.monotonic() - began > self.settings.seconds

    async def stream(self, request: Request) -> AsyncIterator[str]:
        """Give the answer's texts, token by token, as they come.

        Close the iterator (contextlib.aclosing) to leave early: the row is then forgotten, and a batch that nobody
        waits for any more is broken off.

        Raises Problem: too_many_requests, stopping, model_failed, too_slow.
        """
        deadline = self._loop.time() + self.settings.seconds
        row = self._enter(request)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        text = await row.texts.get()
                except TimeoutError:
                    raise Problem(
                        "too_slow",
                        f"the answer was not finished within {self.settings.seconds:g} s; ask for fewer tokens, or later",
                    ) from None
                if text is END:
                    return
                if isinstance(text, Problem):
                    raise text
                yield text
        finally:
            self._leave(row)

    def stop(self) -> None:
        """End everything: what waits or is being answered gets the Problem `stopping`. Waits a little for the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=1)

    def _enter(self, request: Request) -> _Row:
        row = _Row(request)
        with self._changed:
            if self._stopping:
                raise _stopping()
            if len(self._waiting) >= self.settings.waiting:
                raise Problem(
                    "too_many_requests", f"{self.settings.waiting} requests are waiting already; come again in a moment"
                )
            self._waiting.append(row)
            self.metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        return row

    def _leave(self, row: _Row) -> None:
        row.gone = True
        with self._changed:
            if row in self._waiting:
                self._waiting.remove(row)
                self.metrics.waiting.set(len(self._waiting))

    # From here on: the thread.

    def _work(self) -> None:
        while rows := self._gather():
            self.metrics.rows.observe(len(rows))
            self._answer(rows)
        with self._changed:
            rest = list(self._waiting)
            self._waiting.clear()
        self._deliver([(row, _stopping()) for row in rest])

    def _gather(self) -> list[_Row]:
        """Wait for a request, and a moment more for others; nothing when the service stops."""
        with self._changed:
            while not self._stopping:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.settings.rows or self._stopping, self.settings.gather_seconds
                )
                rows = [self._waiting.popleft() for _ in range(min(self.settings.rows, len(self._waiting)))]
                self.metrics.waiting.set(len(self._waiting))
                if rows:  # those who waited may have left in that moment
                    return rows
        return []

    def _answer(self, rows: list[_Row]) -> None:
        try:
            self._speak(rows)
        except Exception:
            # Its words stay in the log: they may name files of this machine.
            LOG.exception("the model failed at a batch of %d", len(rows))
            self.metrics.faults.inc()
            left = [row for row in rows if not row.over and not row.gone]
            untouched = [row for row in left if not row.said] if len(rows) > 1 else []
            failed = Problem("model_failed", "the model could not answer this; other requests are not affected")
            self._deliver([(row, failed) for row in left if row not in untouched])
            # One bad request must not fail those who happened to come with it: who has heard nothing yet, goes alone.
            for row in untouched:
                self._answer([row])

    def _speak(self, rows: list[_Row]) -> None:
        self._step_began = time.monotonic()
        steps = iter(self.speaker.speak([row.request for row in rows]))
        try:
            for texts in steps:
                self._step_began = time.monotonic()
                if len(texts) != len(rows):
                    raise RuntimeError(f"the speaker gave {len(texts)} texts for {len(rows)} requests")
                self._deliver(list(zip(rows, texts, strict=True)))
                if self._stopping:
                    self._deliver([(row, _stopping()) for row in rows])
                if all(row.over or row.gone for row in rows):
                    return
            self._deliver([(row, END) for row in rows])
        finally:
            self._step_began = None
            if close := getattr(steps, "close", None):
                close()

    def _deliver(self, news: list[tuple[_Row, str | Problem | None]]) -> None:
        """Hand every row what is new for it, in one visit to the event loop; what is over stays over."""
        open_rows = [(row, text) for row, text in news if not row.over]
        for row, text in open_rows:
            row.said += isinstance(text, str)
            row.over = not isinstance(text, str)
        if open_rows:
            try:
                self._loop.call_soon_threadsafe(_put, open_rows)
            except RuntimeError:  # the loop is closed, and nobody waits
                self._stopping = True


def _put(news: list[tuple[_Row, str | Problem | None]]) -> None:
    for row, text in news:
        row.texts.put_nowait(text)


def _stopping() -> Problem:
    return Problem("stopping", "the service is shutting down; ask again when it is back")
