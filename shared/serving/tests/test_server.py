"""The service on a real socket of this machine, with OpenAI's client, with httpx, and with clients that disconnect."""

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
from shared.serving.server import listen, make_server

# No certificates to load: everything client stays on this machine, unencrypted.
HTTP = httpx.Client(verify=False, trust_env=False, timeout=60)


@contextlib.contextmanager
def running(model, **settings):
    """Run a server on a free port in its own thread; it ends as it would after a signal."""
    settings = {"batch_wait": 0.0} | settings
    with listen("127.0.0.1", 0) as listening:
        server = make_server(lambda: model, Settings(**settings))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            wait_until(lambda: server.started and HTTP.get(f"{url}/health").status_code == 200)
            yield url, server.service
        finally:
            model.hold_at = None
            model.go.set()
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()


def wait_until(condition) -> None:
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def served(echo_model):
    with running(echo_model) as (url, service):
        yield url, service


@pytest.fixture
def client(served):
    http = openai.DefaultHttpxClient(verify=False, trust_env=False)
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, http_client=http) as openai_client:
        yield openai_client


def data_url(color) -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def turn(*content) -> list[dict]:
    return [{"role": "user", "content": list(content)}]


def image_part(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def test_openais_client_reads_the_answer(client):
    words = {"type": "text", "text": "what is this?"}
    reply = client.chat.completions.create(model="echo", messages=turn(words, image_part(data_url("red"))), seed=3)
    assert reply.choices[0].message.content == "user: [8x6,255,0,0] what is this? "
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 5)
    cut = client.chat.completions.create(model="echo", messages=turn(words), max_completion_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("user: what ", "length")
    assert [model.id for model in client.models.list()] == ["echo"]


def test_openais_client_reads_the_stream(client):
    with client.chat.completions.create(
        model="echo",
        messages=turn({"type": "text", "text": "a b"}, image_part(data_url("blue"))),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert texts == ["", "user: ", "[8x6,0,0,255] ", "a ", "b ", None]
    assert chunks[-1].usage.total_tokens == 6 + 4


def test_openais_client_raises_its_own_errors(client):
    def ask(text="x", model="echo", **others):
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


def test_tokens_arrive_before_the_answer_is_complete(client, echo_model):
    echo_model.hold_at = 2
    with client.chat.completions.create(
        model="echo", messages=turn({"type": "text", "text": "one two three"}), stream=True
    ) as stream:
        texts = (chunk.choices[0].delta.content for chunk in stream)
        assert [next(texts), next(texts), next(texts)] == ["", "user: ", "one "]
        assert not echo_model.go.is_set()  # the model is paused, and these tokens have arrived
        echo_model.go.set()
        assert list(texts) == ["two ", "three ", None]


@pytest.mark.parametrize("stream", [True, False], ids=["during a stream", "before the answer"])
def test_a_client_disconnects(served, echo_model, stream):
    url, service = served
    echo_model.hold_at = 3
    body = json.dumps(
        {"model": "echo", "messages": [{"role": "user", "content": "w " * 50}], "stream": stream}
    ).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(head % len(body) + body)
        if stream:
            assert connection.recv(10).startswith(b"HTTP/1.1")
        wait_until(lambda: not echo_model.go.is_set())
    count = service.metrics.registry.get_sample_value
    wait_until(lambda: count("service_disconnected_clients_total") == 1 and count("service_requests_in_progress") == 0)
    echo_model.hold_at = None
    echo_model.go.set()
    wait_until(lambda: echo_model.closed == 1)  # the model stopped long before its fifty tokens
    assert echo_model.steps < 10
    assert HTTP.post(f"{url}/chat", json={"message": "next"}).json()["answer"] == "user: next "


def test_an_error_reaches_a_client_that_is_still_sending(echo_model):
    """A connection closed during an upload would look like a broken pipe to the client, not like a status."""
    with running(echo_model, max_body_bytes=2_000_000) as (url, _):

        def chunks():
            for _ in range(60):
                yield bytes(100_000)

        for content in (bytes(6_000_000), chunks()):
            reply = HTTP.post(f"{url}/caption", content=content, headers={"content-type": "multipart/form-data"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_invalid_http(served):
    url, _ = served
    for invalid in (
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST /chat HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
            connection.sendall(invalid)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert b" 500 " not in answer and b"Traceback" not in answer
        # No path of this machine: an answer that comes before the disconnect names only the API description.
        assert b"/" not in answer.partition(b"\r\n\r\n")[2].replace(b"see /openapi.json", b"")
    reply = HTTP.get(f"{url}/health")
    assert reply.status_code == 200 and "server" not in reply.headers


def test_conversations_do_not_mix(served):
    """Many conversations at once over many connections: each client receives its own words back and no others."""
    url, _ = served

    def talk(number: int) -> None:
        answers, name = [], None
        with httpx.Client(verify=False, trust_env=False, timeout=60) as client:
            for step in range(3):
                body = {"message": f"own{number}x{step}"} | ({"conversation_id": name} if name else {})
                reply = client.post(f"{url}/chat", json=body)
                assert reply.status_code == 200
                name = reply.json()["conversation_id"]
                answers.append(reply.json()["answer"])
        right[number] = all(
            word.startswith(f"own{number}x") or word in ("user:", "assistant:")
            for answer in answers
            for word in answer.split()
        ) and answers[-1].endswith(f"user: own{number}x2 ")

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
spec = importlib.util.spec_from_file_location("model_module", Path(sys.argv[1]) / "conftest.py")
model_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(model_module)
from shared.serving import Settings, serve
model = model_module.EchoModel()
model.hold_at = 2
serve(lambda: model, port=0, settings=Settings(batch_wait=0, answer_timeout=60))
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=["terminate", "interrupt"])
def test_a_signal_ends_the_service_after_the_requests_in_progress(end):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("model.hold_at = 2", ""), os.path.dirname(__file__)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = program.stderr.readline().split()[0]
        wait_until(lambda: HTTP.get(f"{url}/health").status_code == 200)
        with HTTP.stream(
            "POST",
            f"{url}/v1/chat/completions",
            json={"model": "echo", "messages": turn({"type": "text", "text": "w " * 100}), "stream": True},
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


def test_a_signal_sets_the_state_to_stopping(echo_model):
    server = make_server(lambda: echo_model, Settings())
    server.handle_exit(signal.SIGTERM, None)
    assert server.service.state == "stopping" and server.should_exit


def test_a_model_that_cannot_be_loaded_ends_the_service():
    def load():
        raise CourseError("no checkpoint: make checkpoint-5 makes one")

    with pytest.raises(CourseError, match="make checkpoint-5"):
        serve(load, port=0)


def test_an_error_names_a_port_in_use():
    with listen("127.0.0.1", 0) as listening, pytest.raises(CourseError, match=f"port {listening.getsockname()[1]}"):
        serve(lambda: None, port=listening.getsockname()[1])
    with pytest.raises(CourseError, match="port 99999"):
        serve(lambda: None, port=99999)
