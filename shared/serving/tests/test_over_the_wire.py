"""The service on a real socket of this machine, called on by OpenAI's own client, by httpx, and by clients that hang up."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import openai
import pytest
from PIL import Image

from shared.errors import CourseError
from shared.serving import Settings, serve
from shared.serving.serve import listen, make_server

# No certificates to load: everything here stays on this machine, unencrypted.
HTTP = httpx.Client(verify=False, trust_env=False, timeout=60)


@contextlib.contextmanager
def running(speaker, **settings):
    """A server on a free port, in a thread of its own; it ends as it would for a signal."""
    settings = {"gather_seconds": 0.0} | settings
    with listen("127.0.0.1", 0) as listening:
        server = make_server(lambda: speaker, Settings(**settings))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            wait_until(lambda: server.started and HTTP.get(f"{url}/health").status_code == 200)
            yield url, server.config.app.state.service
        finally:
            speaker.hold_at = None
            speaker.go.set()
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()


def wait_until(true) -> None:
    while not true():
        time.sleep(0.01)


@pytest.fixture
def served(parrot):
    with running(parrot) as (url, service):
        yield url, service


@pytest.fixture
def client(served):
    http = openai.DefaultHttpxClient(verify=False, trust_env=False)
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, http_client=http) as made:
        yield made


def data_url(colour) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def turn(*content) -> list[dict]:
    return [{"role": "user", "content": list(content)}]


def shown(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def test_openais_client_is_answered(client):
    words = {"type": "text", "text": "what is this?"}
    reply = client.chat.completions.create(model="parrot", messages=turn(words, shown(data_url("red"))), seed=3)
    assert reply.choices[0].message.content == "user: [8x6,255,0,0] what is this? "
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 5)
    cut = client.chat.completions.create(model="parrot", messages=turn(words), max_completion_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("user: what ", "length")
    assert [model.id for model in client.models.list()] == ["parrot"]


def test_openais_client_reads_the_stream(client):
    with client.chat.completions.create(
        model="parrot",
        messages=turn({"type": "text", "text": "a b"}, shown(data_url("blue"))),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert said == ["", "user: ", "[8x6,0,0,255] ", "a ", "b ", None]
    assert chunks[-1].usage.total_tokens == 6 + 4


def test_openais_client_raises_its_own_errors(client):
    def ask(text="x", model="parrot", **others):
        return client.chat.completions.create(model=model, messages=turn({"type": "text", "text": text}), **others)

    for error, code, asking in (
        (openai.NotFoundError, "model_not_found", lambda: ask(model="gpt")),
        (openai.BadRequestError, "context_length_exceeded", lambda: ask("word " * 500)),
        (openai.UnprocessableEntityError, "refused", lambda: ask("riddle")),
        (openai.UnprocessableEntityError, "invalid_request", lambda: ask(extra_body={"tools": []})),
        (openai.InternalServerError, "model_failed", lambda: ask("poison")),
    ):
        with pytest.raises(error) as caught:
            asking()
        assert caught.value.code == code and caught.value.status_code < 504
    with pytest.raises(openai.APIError, match="could not answer"):
        list(ask("choke on this", stream=True))


def test_words_come_while_others_are_still_to_be_found(client, parrot):
    parrot.hold_at = 2
    with client.chat.completions.create(
        model="parrot", messages=turn({"type": "text", "text": "one two three"}), stream=True
    ) as stream:
        said = (chunk.choices[0].delta.content for chunk in stream)
        assert [next(said), next(said), next(said)] == ["", "user: ", "one "]
        assert not parrot.go.is_set()  # the model stands still, and this much has come
        parrot.go.set()
        assert list(said) == ["two ", "three ", None]


@pytest.mark.parametrize("stream", [True, False], ids=["in the midst of a stream", "before any answer"])
def test_a_client_hangs_up(served, parrot, stream):
    url, service = served
    parrot.hold_at = 3
    body = json.dumps(
        {"model": "parrot", "messages": [{"role": "user", "content": "w " * 50}], "stream": stream}
    ).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(head % len(body) + body)
        if stream:
            assert connection.recv(10).startswith(b"HTTP/1.1")
        wait_until(lambda: not parrot.go.is_set())
    count = service.metrics.registry.get_sample_value
    wait_until(lambda: count("service_hung_up_total") == 1 and count("service_requests_in_house") == 0)
    parrot.hold_at = None
    parrot.go.set()
    wait_until(lambda: parrot.closed == 1)  # the model has stopped, long before its fifty words
    assert parrot.steps < 10
    assert HTTP.post(f"{url}/chat", json={"message": "next"}).json()["answer"] == "user: next "


def test_a_refusal_reaches_who_is_still_sending(parrot):
    """A connection cut in the midst of an upload would be seen as a broken pipe, not as a status."""
    with running(parrot, body_bytes=2_000_000) as (url, _):

        def chunks():
            for _ in range(60):
                yield bytes(100_000)

        for content in (bytes(6_000_000), chunks()):
            reply = HTTP.post(f"{url}/caption", content=content, headers={"content-type": "multipart/form-data"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_nonsense_on_the_wire(served):
    url, _ = served
    for nonsense in (
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /chat HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert b" 500 " not in answer and b"Traceback" not in answer and b"/" not in answer.partition(b"\r\n\r\n")[2]
    reply = HTTP.get(f"{url}/health")
    assert reply.status_code == 200 and "server" not in reply.headers


def test_strangers_never_meet(served):
    """Many conversations at once over many connections: each hears its own words back and no other's."""
    url, _ = served

    def talk(number: int) -> None:
        heard, name = [], None
        with httpx.Client(verify=False, trust_env=False, timeout=60) as client:
            for step in range(3):
                body = {"message": f"mine{number}x{step}"} | ({"conversation_id": name} if name else {})
                reply = client.post(f"{url}/chat", json=body)
                assert reply.status_code == 200
                name = reply.json()["conversation_id"]
                heard.append(reply.json()["answer"])
        right[number] = all(
            word.startswith(f"mine{number}x") or word in ("user:", "assistant:")
            for answer in heard
            for word in answer.split()
        ) and heard[-1].endswith(f"user: mine{number}x2 ")

    right: dict[int, bool] = {}
    threads = [threading.Thread(target=talk, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == dict.fromkeys(range(12), True)


PROGRAM = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("stand_in", Path(sys.argv[1]) / "conftest.py")
stand_in = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stand_in)
from shared.serving import Settings, serve
speaker = stand_in.Parrot()
speaker.hold_at = 2
serve(lambda: speaker, port=0, settings=Settings(gather_seconds=0, seconds=60))
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["terminate", "interrupt"])
def test_a_signal_ends_it_once_everyone_is_answered(end):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("speaker.hold_at = 2", ""), os.path.dirname(__file__)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = program.stderr.readline().split()[0]
        wait_until(lambda: HTTP.get(f"{url}/health").status_code == 200)
        with HTTP.stream(
            "POST",
            f"{url}/v1/chat/completions",
            json={"model": "parrot", "messages": turn({"type": "text", "text": "w " * 100}), "stream": True},
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            program.send_signal(end)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
        errors = program.stderr.read()
        code = program.wait(60)
    finally:
        program.kill()
    assert code == (-signal.SIGTERM if end == signal.SIGTERM else 0) and "Traceback" not in errors


def test_at_a_signal_the_door_closes(parrot):
    server = make_server(lambda: parrot, Settings())
    server.handle_exit(signal.SIGTERM, None)
    assert server.config.app.state.service.state == "stopping" and server.should_exit


def test_a_model_that_cannot_be_loaded_ends_the_service():
    def load():
        raise CourseError("no checkpoint: make checkpoint-5 makes one")

    with pytest.raises(CourseError, match="make checkpoint-5"):
        serve(load, port=0)


def test_a_port_that_is_taken_is_named():
    with listen("127.0.0.1", 0) as taken, pytest.raises(CourseError, match=f"port {taken.getsockname()[1]}"):
        serve(lambda: None, port=taken.getsockname()[1])
    with pytest.raises(CourseError, match="port 99999"):
        serve(lambda: None, port=99999)
