"""Run the service: a socket, the application, and an orderly shutdown."""

import contextlib
import math
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from shared.errors import CourseError
from shared.serving.app import create_app
from shared.serving.served_model import ServedModel
from shared.serving.service import Service
from shared.serving.settings import API_KEY_VARIABLE, Settings


class Server(uvicorn.Server):
    """uvicorn's server, which at the first signal sets the service to stopping, so that /health reports it."""

    def __init__(self, config: uvicorn.Config, app: FastAPI):
        super().__init__(config)
        self.service: Service = app.state.service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.close()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        # A service whose model cannot be loaded has nothing to wait for.
        return await super().on_tick(counter) or self.service.failure is not None


def make_server(load: Callable[[], ServedModel], settings: Settings) -> Server:
    """Create a server that does not run yet; `server.run([socket])` runs it."""
    app = create_app(load, settings)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.answer_timeout),
    )
    return Server(config, app)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes any free port. Raises CourseError when the address cannot be used."""
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        raise CourseError(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. "
            "Choose another port with PORT=…, or end the program that uses this one"
        ) from error


def with_api_key(settings: Settings) -> Settings:
    """Return the settings with the key of the environment, unless they have one. Raises CourseError for a bad key."""
    key = os.environ.get(API_KEY_VARIABLE)
    if key is None or settings.api_key is not None:
        return settings
    try:
        return replace(settings, api_key=key)
    except ValueError as error:
        raise CourseError(
            f"{API_KEY_VARIABLE}: {error}; set it to a long random text, or unset it to serve without a key"
        ) from None


def serve(
    load: Callable[[], ServedModel], *, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None
) -> None:
    """Serve until a signal arrives; then answer the requests in progress, and return.

    load   returns the model. It is called once, after the port is open: /health reports "starting" meanwhile
    host   the default accepts connections from this machine only; 0.0.0.0 from everywhere

    Settings without an API key take it from the environment variable MULTIMODAL_API_KEY, if it is set.

    Raises CourseError when the port or the key cannot be used, and every exception of `load`.
    """
    settings = with_api_key(settings or Settings())
    with listen(host, port) as listening:
        server = make_server(load, settings)
        key = "" if settings.api_key is None else f"  with the key in {API_KEY_VARIABLE}"
        print(f"http://{host}:{listening.getsockname()[1]}{key}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])
        if server.service.failure:
            raise server.service.failure
