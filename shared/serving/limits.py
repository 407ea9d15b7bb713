"""Request limits, enforced before any route runs: the API key, the body's size and time, concurrency, disconnects.

`RequestLimits` is an ASGI middleware. It reads a body of limited size in limited time. When a client disconnects, it
cancels the request's task, and with it all work for this request. The limits of images are in images.py, those of
tokens in answers.py; their values are in settings.py.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass

from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.serving.errors import ServiceError
from shared.serving.metrics import Metrics
from shared.serving.settings import Settings

LOG = logging.getLogger(__name__)
DRAIN_FACTOR = 4
"""After a refusal at most so many times the largest body is read and discarded before the connection is closed."""


class _Disconnected(Exception):
    """The client has disconnected; there is no one to answer."""


@dataclass(frozen=True)
class ServicePaths:
    """Group the application's paths.

    routes  templates such as /models/{name}; every other path is counted as "other"
    exempt  answered in every state and beyond the limit on concurrent requests; their bodies are not read
    open    answered without the API key
    """

    routes: Collection[str]
    exempt: Collection[str]
    open: Collection[str]

    def template_of(self, path: str) -> str:
        """Return the route that a path belongs to, or "other"."""
        if path in self.routes:
            return path
        return next((each for each in self.routes if "{" in each and compile_path(each)[0].match(path)), "other")


class RequestLimits:
    """Admit requests to the application.

    app    the application behind the limits
    state  returns "ready", or why requests are refused now: "starting", "stopping"
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, metrics: Metrics, state: Callable[[], str], paths: ServicePaths
    ):
        self.app, self.settings, self.metrics, self.state, self.paths = app, settings, metrics, state, paths
        self.in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        path = self.paths.template_of(scope["path"])
        upload, response = _Upload(receive), _Response(send, with_body=scope["method"] != "HEAD")
        if scope["method"] == "HEAD":  # the head of what GET answers
            scope = {**scope, "method": "GET"}
        try:
            await self._admit(scope, upload, response)
        except _Disconnected:
            self.metrics.disconnected_clients.inc()
        except ServiceError as error:
            await self._refuse(error, scope, upload, response)
        except Exception:
            # A bug of the service. The details are for the log, not for the client.
            LOG.exception("%s %s failed", scope["method"], path)
            if response.status:
                raise  # half a response is sent: the connection can only be closed
            internal_error = ServiceError("internal_error", "the service failed; its log has the details")
            await self._refuse(internal_error, scope, upload, response)
        finally:
            self.metrics.requests.labels(path, response.status or "left").inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - started)

    async def _admit(self, scope: Scope, upload: "_Upload", response: "_Response") -> None:
        if scope["path"] not in self.paths.open:
            self._check_key(dict(scope["headers"]).get(b"authorization", b""))
        if scope["path"] in self.paths.exempt:
            await self.app(scope, upload.receive, response)
            return
        if (state := self.state()) != "ready":
            raise ServiceError(state, f"the service is {state}; try again in a moment")
        if self.in_progress >= self.settings.max_concurrent:
            raise ServiceError(
                "too_many_requests", f"{self.in_progress} requests are in progress; try again in a moment"
            )
        self.in_progress += 1
        self.metrics.in_progress.set(self.in_progress)
        try:
            body = await self._read_body(scope, upload)
            await self._run_while_connected(self.app(scope, _BufferedReceive(body), response), upload, response)
        finally:
            self.in_progress -= 1
            self.metrics.in_progress.set(self.in_progress)

    def _check_key(self, authorization: bytes) -> None:
        key = self.settings.api_key
        if key is None:
            return
        scheme, _, client_key = authorization.partition(b" ")
        # The comparison takes equally long wherever the keys differ, so that its time reveals nothing of the key.
        if scheme.lower() != b"bearer" or not secrets.compare_digest(client_key.strip(), key.encode()):
            raise ServiceError("invalid_api_key", "this service needs its key: send Authorization: Bearer KEY")

    async def _read_body(self, scope: Scope, upload: "_Upload") -> bytes:
        """Read the complete body. A declared length is used only to refuse it early."""
        limit = self.settings.max_body_bytes
        too_large = ServiceError("body_too_large", f"a body may have at most {limit:,} bytes; send a smaller image")
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.upload_timeout):
                async for chunk in upload.chunks():
                    body += chunk
                    if len(body) > limit:
                        raise too_large
        except TimeoutError:
            raise ServiceError(
                "upload_too_slow",
                f"the body did not arrive within {self.settings.upload_timeout:g} s; send a smaller image",
            ) from None
        return bytes(body)

    async def _run_while_connected(self, work: Awaitable[None], upload: "_Upload", response: "_Response") -> None:
        """Run the application until it is done or the client disconnects.

        A response must begin within `answer_timeout`, and the client must have read it within the same time again.
        """
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(upload.wait_for_disconnect())
        limit = self.settings.answer_timeout
        try:
            done, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not done and response.status:
                done, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0] in done:
                tasks[0].result()
            elif done or response.status:
                raise _Disconnected
            else:
                raise ServiceError(
                    "too_slow",
                    f"the answer was not finished within {limit:g} s; request fewer tokens, or try again later",
                )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self, error: ServiceError, scope: Scope, upload: "_Upload", response: "_Response") -> None:
        """Send an error, then read and discard the rest of the body for a while before closing the connection.

        A client whose connection is closed while it is still sending may never see the error.
        """

        async def send_unfinished(message: Message) -> None:
            await response({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await error.response()(scope, upload.receive, send_unfinished)
        if b"expect" not in dict(scope["headers"]):  # a client that asks before it sends will not send now
            await upload.discard(DRAIN_FACTOR * self.settings.max_body_bytes, self.settings.upload_timeout)
        await response({"type": "http.response.body", "body": b""})


class _Upload:
    """A request's body as it arrives, and after it the client's disconnect."""

    def __init__(self, receive: Receive):
        self.receive, self.ended = receive, False

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self.ended:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.ended = True
                raise _Disconnected
            self.ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def wait_for_disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def discard(self, max_bytes: int, seconds: float) -> None:
        with contextlib.suppress(TimeoutError, _Disconnected):
            async with asyncio.timeout(seconds):
                async for chunk in self.chunks():
                    max_bytes -= len(chunk)
                    if max_bytes < 0:
                        return


class _BufferedReceive:
    """`receive` for the application: the body once, then nothing; the middleware itself watches for a disconnect."""

    def __init__(self, body: bytes):
        self.body: bytes | None = body

    async def __call__(self) -> Message:
        if self.body is None:
            await asyncio.get_running_loop().create_future()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Response:
    """`send` that records the status of the response, 0 before there is one."""

    def __init__(self, send: Send, *, with_body: bool = True):
        self.send, self.with_body, self.status = send, with_body, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not self.with_body:
            message = {**message, "body": b""}
        await self.send(message)
