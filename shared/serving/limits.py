"""The door: what every request passes before anything looks into it, as an ASGI middleware.

It counts who is in the house, takes in a body of bounded size in bounded time, and sees when a client leaves:
then the request's task is canceled, wherever it is, and with it everything that was done for it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.serving.metrics import Metrics
from shared.serving.problems import Problem
from shared.serving.settings import Settings

LOG = logging.getLogger(__name__)
DRAINED = 4  # times the largest body: so much is read, and thrown away, before a connection is cut


class _Left(Exception):
    """The client is gone; there is nobody to answer."""


class Door:
    """Lets requests in, one by one.

    app     what answers them
    state   "ready", or why nothing can be answered now: "starting", "stopping"
    paths   known ones; whatever else is asked for is counted as "other"
    always  paths that are answered in every state and however full the house is, and whose bodies are not read
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        state: Callable[[], str],
        paths: Collection[str],
        always: Collection[str],
    ):
        self.app, self.settings, self.metrics, self.state = app, settings, metrics, state
        self.paths, self.always = paths, always
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        path = scope["path"] if scope["path"] in self.paths else "other"
        upload, answer = _Upload(receive), _Watched(send)
        try:
            await self._let_in(scope, upload, answer)
        except _Left:
            self.metrics.hung_up.inc()
        except Problem as problem:
            await self._refuse(problem, scope, upload, answer)
        except Exception:
            # A mistake of ours. The log says all, the client nothing but that.
            LOG.exception("%s %s failed", scope["method"], path)
            if answer.status:
                raise  # half an answer is sent: all that is left is to cut the connection
            problem = Problem("internal_error", "the service made a mistake; it is in its log")
            await self._refuse(problem, scope, upload, answer)
        finally:
            self.metrics.requests.labels(path, answer.status or "left").inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - began)

    async def _let_in(self, scope: Scope, upload: "_Upload", answer: "_Watched") -> None:
        if scope["path"] in self.always:
            await self.app(scope, upload.receive, answer)
            return
        if (state := self.state()) != "ready":
            raise Problem(state, f"the service is {state}; come again in a moment")
        if self.inside >= self.settings.concurrent:
            raise Problem("too_many_requests", f"{self.inside} requests are being answered; come again in a moment")
        self.inside += 1
        self.metrics.in_house.set(self.inside)
        try:
            body = await self._body(scope, upload)
            await self._while_there(self.app(scope, _Read(body), answer), upload, answer)
        finally:
            self.inside -= 1
            self.metrics.in_house.set(self.inside)

    async def _body(self, scope: Scope, upload: "_Upload") -> bytes:
        """The whole body. A declared length is believed only when it is too large."""
        most = self.settings.body_bytes
        too_large = Problem("body_too_large", f"a request's body may have {most:,} bytes; send a smaller image")
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.upload_seconds):
                async for chunk in upload.chunks():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Problem(
                "upload_too_slow", f"the body did not arrive within {self.settings.upload_seconds:g} s"
            ) from None
        return bytes(body)

    async def _while_there(self, answering: Coroutine, upload: "_Upload", answer: "_Watched") -> None:
        """Answer for as long as the client is there; who reads its answer too slowly is cut off."""
        tasks = asyncio.ensure_future(answering), asyncio.ensure_future(upload.departure())
        try:
            most = 2 * self.settings.seconds
            done, _ = await asyncio.wait(tasks, timeout=most, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done:
                tasks[0].result()
            elif done or answer.status:
                raise _Left
            else:
                raise Problem("too_slow", f"no answer within {most:g} s; come again later")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self, problem: Problem, scope: Scope, upload: "_Upload", answer: "_Watched") -> None:
        """Say no, then read on for a while what nobody wants, and only then hang up: a client whose connection is cut
        while it is still sending may never see the answer that tells it why."""

        async def not_the_end(message: Message) -> None:
            await answer(message | {"more_body": True} if message["type"] == "http.response.body" else message)

        await problem.response()(scope, upload.receive, not_the_end)
        if b"expect" not in dict(scope["headers"]):  # who asked before sending, sends nothing after a no
            await upload.drain(DRAINED * self.settings.body_bytes, self.settings.upload_seconds)
        await answer({"type": "http.response.body", "body": b""})


class _Upload:
    """A request's body as it arrives, and then the news that the client has left."""

    def __init__(self, receive: Receive):
        self.receive, self.ended = receive, False

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self.ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.ended = True
                raise _Left
            self.ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def departure(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def drain(self, most: int, seconds: float) -> None:
        with contextlib.suppress(TimeoutError, _Left):
            async with asyncio.timeout(seconds):
                async for chunk in self.chunks():
                    most -= len(chunk)
                    if most < 0:
                        return


class _Read:
    """`receive` for the app: the body that was read, once; then nothing ever, for the door itself sees who leaves."""

    def __init__(self, body: bytes):
        self.body: bytes | None = body

    async def __call__(self) -> Message:
        if self.body is None:
            await asyncio.get_running_loop().create_future()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Watched:
    """`send`, remembering the status that went out: 0 when none has."""

    def __init__(self, send: Send):
        self.send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self.send(message)
