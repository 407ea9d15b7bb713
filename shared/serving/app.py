"""One application over any trained model: every path of the service, and what becomes of what goes wrong."""

import asyncio
import contextlib
from collections.abc import Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from shared.serving import completions
from shared.serving.answering import Answer, Answering
from shared.serving.description import describe
from shared.serving.forms import read_form
from shared.serving.images import from_base64, from_data_url
from shared.serving.limits import Door
from shared.serving.metrics import Metrics
from shared.serving.problems import JSON, Problem
from shared.serving.schema import CaptionForm, ChatBody, CompletionBody, QuestionForm, from_form, from_json
from shared.serving.served_model import Message, Speaker
from shared.serving.settings import Settings

ALWAYS = ("/health", "/metrics")


class Service:
    """What stands behind the paths: the model once it is there, and the state that /health tells.

    state    "starting", "ready" or "stopping"
    settled  is set when starting is over, either way
    failure  what loading the model raised; then the service is stopping
    """

    def __init__(self, load: Callable[[], Speaker], settings: Settings):
        self.load, self.settings, self.metrics = load, settings, Metrics()
        self.state = "starting"
        self.settled = asyncio.Event()
        self.failure: Exception | None = None
        self.answering: Answering | None = None

    async def start(self) -> None:
        """Load the model beside the event loop, so that /health answers meanwhile."""
        try:
            speaker = await asyncio.to_thread(self.load)
            self.answering = Answering(speaker, self.settings, self.metrics)
            if self.state == "starting":
                self.state = "ready"
        except Exception as error:
            self.state, self.failure = "stopping", error
        finally:
            self.settled.set()

    def close(self) -> None:
        """Let nobody in any more; who is in is answered."""
        self.state = "stopping"

    def stop(self) -> None:
        self.close()
        if self.answering:
            self.answering.batcher.stop()

    def health(self) -> Response:
        stalled = self.answering is not None and self.answering.batcher.stalled
        state = "stalled" if stalled else self.state
        return JSON({"status": state}, 200 if state == "ready" else 503)

    def page_of_metrics(self) -> Response:
        if self.answering:
            conversations = self.answering.conversations
            conversations.forget_old()
            self.metrics.conversations.set(len(conversations))
            self.metrics.conversation_bytes.set(conversations.bytes)
        return self.metrics.page()

    async def chat(self, body: ChatBody) -> Response:
        """One turn of a conversation, which remembers it only once it is answered."""
        with self.answering.conversations.turn(body.conversation_id) as (name, turn):
            images = ()
            if body.image is not None:
                read = from_data_url if body.image.startswith("data:") else from_base64
                images = (await self.answering.picture(lambda: read(body.image, param="image"), "image"),)
            question = Message("user", body.message, images)
            prepared = await self.answering.prepare((*turn.history, question), body, body.max_new_tokens)
            answer = await prepared.answer()
            turn.keep(question, Message("assistant", answer.text))
        return _said(answer, {"conversation_id": name, "answer": answer.text})

    async def caption(self, http: HTTPRequest) -> Response:
        data, fields = await read_form(http)
        form = from_form(CaptionForm, fields)
        answer = await self._about(data, self.settings.caption_prompt, form)
        return _said(answer, {"caption": answer.text})

    async def question(self, http: HTTPRequest) -> Response:
        data, fields = await read_form(http)
        form = from_form(QuestionForm, fields)
        answer = await self._about(data, form.question, form)
        return _said(answer, {"answer": answer.text})

    async def _about(self, data: bytes, words: str, form: CaptionForm | QuestionForm) -> Answer:
        image = await self.answering.picture(lambda: data, "image")
        prepared = await self.answering.prepare((Message("user", words, (image,)),), form, form.max_new_tokens)
        return await prepared.answer()


def _said(answer: Answer, content: dict) -> Response:
    return JSON({**content, "finish_reason": answer.finish_reason, "usage": answer.usage})


def create_app(load: Callable[[], Speaker], settings: Settings | None = None) -> FastAPI:
    """The application. `load` makes the Speaker, once, when the application starts; `app.state.service` is its Service.

    No page of documentation is served, for FastAPI's would be fetched from elsewhere; /openapi.json is.
    """
    settings = settings or Settings()
    service = Service(load, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI):
        starting = asyncio.create_task(service.start())
        yield
        service.close()
        await starting  # a model that is being loaded cannot be told to stop
        service.stop()

    # No redirects either: their address would be made of what the client says that this machine is called.
    app = FastAPI(
        title="Multimodal from Scratch", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.openapi = lambda: describe(app)
    _add_paths(app, service)
    app.add_exception_handler(Problem, _tell)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_middleware(
        Door,
        settings=settings,
        metrics=service.metrics,
        state=lambda: service.state,
        paths={route.path for route in app.routes},
        always=ALWAYS,
    )
    return app


def _add_paths(app: FastAPI, service: Service) -> None:
    """Bodies are read by hand: FastAPI would list every one of a million errors, and keep files on a disk."""

    @app.get("/health", summary="is the service ready?")
    async def health() -> Response:
        return service.health()

    @app.get("/metrics", summary="Prometheus")
    async def metrics() -> Response:
        return service.page_of_metrics()

    @app.post("/caption", summary="describe an image")
    async def caption(http: HTTPRequest) -> Response:
        return await service.caption(http)

    @app.post("/question", summary="answer a question about an image")
    async def question(http: HTTPRequest) -> Response:
        return await service.question(http)

    @app.post("/chat", summary="one turn of a conversation")
    async def chat(http: HTTPRequest) -> Response:
        return await service.chat(from_json(ChatBody, await _json_body(http)))

    @app.post("/v1/chat/completions", summary="OpenAI's chat completions")
    async def complete(http: HTTPRequest) -> Response:
        return await completions.complete(from_json(CompletionBody, await _json_body(http)), service.answering)

    @app.get("/v1/models", summary="the model here")
    async def models() -> Response:
        return completions.models(service.answering)


async def _json_body(http: HTTPRequest) -> bytes:
    # Any web page may make a browser send text or a form to a service on the same machine; JSON, only where allowed.
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("wrong_content_type", "send JSON, and say so: content-type: application/json")
    return await http.body()


async def _tell(http: HTTPRequest, problem: Problem) -> Response:
    return problem.response()


async def _tell_http(http: HTTPRequest, error: HTTPException) -> Response:
    """What the router itself refuses: paths and methods that are not there."""
    if error.status_code == 405:
        problem = Problem("method_not_allowed", "this path is not asked in this way; see /openapi.json")
    else:
        problem = Problem("no_such_path", "there is nothing here; see /openapi.json for what there is")
    return problem.response()
