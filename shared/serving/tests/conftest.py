"""A model without weights, and a client that calls the application without a network."""

import asyncio
import contextlib
import io
import json
import threading
import time
from dataclasses import dataclass, field

import httpx
import pytest
from PIL import Image

from shared.serving import GenerationRequest, Settings, UnsupportedRequest, create_app
from shared.serving.server import listen, make_server


class EchoModel:
    """Repeat the conversation, one word per token, and for each image its size and mean color.

    So an answer shows which texts and images reached the model, and in what order. Nothing is random.
    """

    name, context_length = "echo", 400
    image_tokens = 4

    def __init__(self):
        self.batches: list[int] = []
        self.closed = 0
        self.steps = 0
        self.stepped = threading.Event()
        self.go = threading.Event()  # while cleared, the model waits at its next step
        self.go.set()
        self.hold_at: int | None = None  # the step at which the model clears it
        self.held = threading.Event()  # set when the model has cleared it

    def count_tokens(self, request: GenerationRequest) -> int:
        images = sum(len(message.images) for message in request.messages)
        if "riddle" in request.messages[-1].text:
            raise UnsupportedRequest("riddles are not answered here")
        if "puzzle" in request.messages[-1].text:
            raise RuntimeError("/secret/vocabulary.json is damaged")
        words = sum(len(message.text.split()) for message in request.messages)
        return words + self.image_tokens * images

    def words(self, request: GenerationRequest) -> list[str]:
        last = request.messages[-1].text
        if "poison" in last:
            raise RuntimeError("cannot read /secret/weights.safetensors")
        if last == "silence":
            return []
        words = []
        for message in request.messages:
            words.append(f"{message.role}:")
            words += [self.describe(image) for image in message.images]
            words += message.text.split()
        if request.temperature:
            words.append(f"t={request.temperature:g} p={request.top_p} s={request.seed}".replace(" ", ","))
        return words

    @staticmethod
    def describe(image: Image.Image) -> str:
        assert image.mode == "RGB"
        red, green, blue = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return f"[{image.width}x{image.height},{red},{green},{blue}]"

    def generate(self, requests):
        self.batches.append(len(requests))
        rows = [self.words(request)[: request.max_new_tokens] for request in requests]
        try:
            for step in range(max(map(len, rows))):
                self.steps += 1
                self.stepped.set()
                if step == self.hold_at:
                    self.go.clear()
                    self.held.set()
                assert self.go.wait(60)
                if any("choke" in request.messages[-1].text for request in requests) and step == 1:
                    raise RuntimeError("out of memory at /dev/secret")
                yield [row[step] + " " if step < len(row) else None for row in rows]
        except GeneratorExit:
            self.closed += 1
            raise


@dataclass
class Reply:
    """The application's response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]


class AppClient:
    """Call a running application as a server would call it."""

    def __init__(self, app, model):
        self.app, self.model, self.service = app, model, app.state.service

    async def ask(self, method, path, *, headers=(), chunks=(b"",), disconnected=None, reply=None) -> Reply:
        """Send one request; in the body `chunks` None disconnects the client, as does the event `disconnected`."""
        reply = reply or Reply()
        remaining = [*chunks]

        async def receive():
            if remaining:
                chunk = remaining.pop(0)
                if callable(chunk):
                    chunk = await chunk()
                if chunk is None:
                    return {"type": "http.disconnect"}
                return {"type": "http.request", "body": chunk, "more_body": bool(remaining)}
            await (disconnected or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                assert not reply.status
                reply.status = message["status"]
                reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                reply.body += message.get("body", b"")
                reply.ended = not message.get("more_body", False)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        return reply

    async def get(self, path) -> Reply:
        return await self.ask("GET", path)

    async def post(self, path, *, form=None, files=None, **others) -> Reply:
        """Send a form if there is one, else a JSON object of the other arguments."""
        if form is None and files is None:
            request = httpx.Request("POST", "http://service", json=others)
        else:
            request = httpx.Request("POST", "http://service", data=form or {}, files=files or {"none": b""})
        return await self.ask("POST", path, headers=request.headers.raw, chunks=[request.read()])


@contextlib.asynccontextmanager
async def run_app(model=None, **settings):
    """Run an application with a loaded model; at the end it is closed and its thread has ended."""
    model = model or EchoModel()
    app = create_app(lambda: model, Settings(**settings))
    async with app.router.lifespan_context(app):
        await app.state.service.settled.wait()
        yield AppClient(app, model)
        model.go.set()
    assert not app.state.service.answers.batcher._thread.is_alive()
    assert not app.state.service.answers.images.process_ids


def make_jpeg_with_scans(side: int, scans: int) -> bytes:
    """Return a gray progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("L", (side, side), 100).save(file, "JPEG", progressive=True)
    data, end = file.getvalue()[:-2], b"\xff\xd9"
    return data + data[data.rindex(b"\xff\xda") :] * (scans - 6) + end


@pytest.fixture
def jpeg_with_scans():
    return make_jpeg_with_scans


@pytest.fixture
def echo_model():
    return EchoModel()


@pytest.fixture
def running_app():
    return run_app


@pytest.fixture
def client_of():
    return AppClient


@pytest.fixture
def reply():
    return Reply


class ServerInThread:
    """Run a server on a free port of this machine, in a thread of its own; entering the context returns its URL.

    wait  return only when the model is loaded
    """

    def __init__(self, load, *, wait: bool = True, **settings):
        self.server, self.wait = make_server(load, Settings(**{"batch_wait": 0.0, **settings})), wait
        self.service = self.server.service

    def __enter__(self) -> str:
        self.socket = listen("127.0.0.1", 0)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()
        while self.wait and self.service.state != "ready":
            time.sleep(0.01)
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *_) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        self.socket.close()


@pytest.fixture
def serve_in_thread():
    return ServerInThread
