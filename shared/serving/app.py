"""The web application over a served model: routes, limits, and responses to errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from shared.serving.errors import ServiceError
from shared.serving.limits import RequestLimits, ServicePaths
from shared.serving.openapi import openapi_description
from shared.serving.routes import add_routes
from shared.serving.served_model import ServedModel
from shared.serving.service import Service
from shared.serving.settings import Settings
from shared.serving.web_page import FILES, add_page
from shared.serving.web_page import PATHS as PAGE_PATHS

EXEMPT_PATHS = ("/health", "/metrics", *PAGE_PATHS)
OPEN_PATHS = ("/health", *FILES)


def create_app(load: Callable[[], ServedModel], settings: Settings | None = None) -> FastAPI:
    """Create the application.

    `load` returns the model; it is called once, when the application starts. `app.state.service` is the Service.
    FastAPI's documentation pages are off, because they load code from elsewhere; /openapi.json is on.
    """
    settings = settings or Settings()
    service = Service(load, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(service.start())
        yield
        service.close()
        await starting  # loading a model cannot be interrupted
        service.stop()
        await service.end_processes()

    # Redirects are off too: their address would contain a host name chosen by the client.
    app = FastAPI(
        title="Multimodal from Scratch", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.openapi = lambda: openapi_description(app, service.scope)  # type: ignore[method-assign]
    add_routes(app, service)
    add_page(app, service)
    app.add_exception_handler(ServiceError, service_error_response)
    app.add_exception_handler(HTTPException, router_error_response)
    paths = ServicePaths(
        routes={getattr(route, "path", "") for route in app.routes}, exempt=EXEMPT_PATHS, open=OPEN_PATHS
    )
    app.add_middleware(
        RequestLimits, settings=settings, metrics=service.metrics, state=lambda: service.state, paths=paths
    )
    return app


async def service_error_response(http: HTTPRequest, error: Exception) -> Response:
    """Return the response to a ServiceError."""
    assert isinstance(error, ServiceError)
    return error.response()


async def router_error_response(http: HTTPRequest, error: Exception) -> Response:
    """Return the response to what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        service_error = ServiceError("method_not_allowed", "this path has another method; see /openapi.json")
    else:
        service_error = ServiceError("no_such_path", "this path does not exist; see /openapi.json for all paths")
    return service_error.response()
