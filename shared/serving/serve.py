"""Run the service: a socket, the application, and an orderly end."""

import contextlib
import math
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from shared.errors import CourseError
from shared.serving.app import create_app
from shared.serving.served_model import Speaker
from shared.serving.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, which at the first signal closes the service's door: /health says so to whoever sends it work."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.close()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        # A service whose model cannot be loaded has nothing to wait for.
        return await super().on_tick(counter) or self.config.app.state.service.failure is not None


def make_server(load: Callable[[], Speaker], settings: Settings) -> Server:
    """A server that is not yet running; for whoever has a socket of his own."""
    config = uvicorn.Config(
        create_app(load, settings),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.seconds),
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 is any that is free. Raises CourseError when it cannot be had."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        raise CourseError(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Choose another with PORT=…, or end what holds it"
        ) from error


def serve(
    load: Callable[[], Speaker], *, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None
) -> None:
    """Serve until a signal comes; then answer who is in, and return.

    load   makes the Speaker. It is called once, when the port is open already: /health says "starting" meanwhile.
    host   the default lets in this machine alone; 0.0.0.0 lets in everyone

    Raises CourseError when the port cannot be had, and whatever `load` raises.
    """
    with listen(host, port) as listening:
        server = make_server(load, settings or Settings())
        print(f"http://{host}:{listening.getsockname()[1]}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])
        if failure := server.config.app.state.service.failure:
            raise failure
