"""A stand-in for a model, and a house to call on without a network."""

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field

import httpx
import pytest
from PIL import Image

from shared.serving import Refusal, Request, Settings, create_app


class Parrot:
    """Says again everything that it was told, a word a token, and of every picture its size and mean colour.

    So an answer shows whose words and whose pictures reached the model, in what order, and nothing is left to chance.
    """

    name, longest = "parrot", 400
    words_of_a_picture = 4

    def __init__(self):
        self.batches: list[int] = []
        self.closed = 0
        self.steps = 0
        self.stepped = threading.Event()
        self.go = threading.Event()  # cleared, it waits at its next step
        self.go.set()
        self.hold_at: int | None = None  # a step at which it clears it

    def count(self, request: Request) -> int:
        pictures = sum(len(message.images) for message in request.messages)
        if "riddle" in request.messages[-1].text:
            raise Refusal("riddles are not answered here")
        if "puzzle" in request.messages[-1].text:
            raise RuntimeError("/secret/vocabulary.json is damaged")
        words = sum(len(message.text.split()) for message in request.messages)
        return words + self.words_of_a_picture * pictures

    def words(self, request: Request) -> list[str]:
        last = request.messages[-1].text
        if "poison" in last:
            raise RuntimeError("cannot read /secret/weights.safetensors")
        if last == "silence":
            return []
        said = []
        for message in request.messages:
            said.append(f"{message.role}:")
            said += [self.look(image) for image in message.images]
            said += message.text.split()
        if request.temperature:
            said.append(f"t={request.temperature:g} p={request.top_p} s={request.seed}".replace(" ", ","))
        return said

    @staticmethod
    def look(image: Image.Image) -> str:
        assert image.mode == "RGB"
        red, green, blue = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        return f"[{image.width}x{image.height},{red},{green},{blue}]"

    def speak(self, requests):
        self.batches.append(len(requests))
        rows = [self.words(request)[: request.max_new_tokens] for request in requests]
        try:
            for step in range(max(map(len, rows))):
                self.steps += 1
                self.stepped.set()
                if step == self.hold_at:
                    self.go.clear()
                assert self.go.wait(60)
                if any("choke" in request.messages[-1].text for request in requests) and step == 1:
                    raise RuntimeError("out of memory at /dev/secret")
                yield [row[step] + " " if step < len(row) else None for row in rows]
        except GeneratorExit:
            self.closed += 1
            raise


@dataclass
class Reply:
    """What came back from the application."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]


class House:
    """A running application, called as a server would call it."""

    def __init__(self, app, speaker):
        self.app, self.speaker, self.service = app, speaker, app.state.service

    async def ask(self, method, path, *, headers=(), chunks=(b"",), left=None, reply=None) -> Reply:
        """One request. `chunks` is the body (None: the client goes), `left` an event that says that it has gone."""
        reply = reply or Reply()
        arriving = [*chunks]

        async def receive():
            if arriving:
                chunk = arriving.pop(0)
                if callable(chunk):
                    chunk = await chunk()
                if chunk is None:
                    return {"type": "http.disconnect"}
                return {"type": "http.request", "body": chunk, "more_body": bool(arriving)}
            await (left or asyncio.Event()).wait()
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
        """A form when there is one, else JSON of the rest."""
        if form is None and files is None:
            request = httpx.Request("POST", "http://here", json=others)
        else:
            request = httpx.Request("POST", "http://here", data=form or {}, files=files or {"none": b""})
        return await self.ask("POST", path, headers=request.headers.raw, chunks=[request.read()])


@contextlib.asynccontextmanager
async def open_house(speaker=None, **settings):
    """A house whose model is loaded; it is closed at the end, and nobody is left in it."""
    speaker = speaker or Parrot()
    app = create_app(lambda: speaker, Settings(**settings))
    async with app.router.lifespan_context(app):
        await app.state.service.settled.wait()
        yield House(app, speaker)
        speaker.go.set()
    assert not app.state.service.answering.batcher._thread.is_alive()


@pytest.fixture
def parrot():
    return Parrot()


@pytest.fixture
def house():
    return open_house


@pytest.fixture
def house_of():
    return House


@pytest.fixture
def reply():
    return Reply
