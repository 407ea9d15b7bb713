"""The service on a real socket of this machine, with OpenAI's client, with httpx, and with clients that disconnect."""

import base64
import contextlib
import inspect
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
from shared.serving.server import listen, make_server, with_api_key
from shared.serving.settings import API_KEY_VARIABLE

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


TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


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
    assert client.models.retrieve("echo").id == "echo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("a/model")


def test_openais_client_sends_a_reply_back(client):
    """As an object, with all of its fields that are null, and as a dictionary without them."""
    first = client.chat.completions.create(model="echo", messages=turn({"type": "text", "text": "one"}))
    reply = first.choices[0].message
    extended = {**reply.model_dump(), "annotations": [], "tool_calls": []}
    for answer in (reply, reply.model_dump(), reply.to_dict(), extended):
        messages = [{"role": "user", "content": "one"}, answer, {"role": "user", "content": "two"}]
        second = client.chat.completions.create(model="echo", messages=messages)
        assert second.choices[0].message.content == "user: one assistant: user: one user: two "
    called = {**reply.model_dump(), "tool_calls": [{"id": "1", "type": "function", "function": {}}]}
    with pytest.raises(openai.UnprocessableEntityError, match="tool_calls"):
        client.chat.completions.create(model="echo", messages=[called, {"role": "user", "content": "two"}])


NEUTRAL = {
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "response_format": {"type": "text"},
    "metadata": {"run": "1"},
    "store": True,
    "service_tier": "auto",
    "modalities": ["text"],
    "prompt_cache_key": "x",
    "safety_identifier": "x",
    "user": "x",
    "logit_bias": {},
    "logprobs": False,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "n": 1,
    "stop": [],
}


def test_openais_fields_are_accepted_at_values_that_change_nothing(client):
    def ask(**fields):
        messages = turn({"type": "text", "text": "a"}, image_part(data_url("red")))
        return client.chat.completions.create(model="echo", messages=messages, **fields).choices[0].message.content

    plain = ask()
    assert ask(**NEUTRAL) == plain
    for name, value in NEUTRAL.items():
        assert ask(**{name: value}) == plain, name


def test_null_is_a_field_left_out(client, served):
    fields = inspect.signature(client.chat.completions.create).parameters
    optional = {name for name, each in fields.items() if each.default is not inspect.Parameter.empty}
    optional -= {"extra_headers", "extra_query", "extra_body", "timeout"}
    assert {"stop", "temperature", "web_search_options", "audio"} <= optional
    messages = turn({"type": "text", "text": "a"})
    plain = client.chat.completions.create(model="echo", messages=messages).choices[0].message.content
    nulls = dict.fromkeys(optional)
    reply = client.chat.completions.create(model="echo", messages=messages, extra_body=nulls)
    assert reply.choices[0].message.content == plain
    nested = {
        "model": "echo",
        "messages": [{"role": "user", "name": None, "content": [{"type": "text", "text": "a"}]}],
        "stream_options": {"include_usage": None},
    }
    nested["messages"][0]["content"].append(
        {"type": "image_url", "image_url": {"url": data_url("red"), "detail": None}}
    )
    url, _ = served
    assert HTTP.post(f"{url}/v1/chat/completions", json=nested).status_code == 200
    body = {"message": "x", "image": None, "conversation_id": None, "max_new_tokens": None, "temperature": None}
    assert HTTP.post(f"{url}/chat", json=body | {"top_p": None, "seed": None}).json()["answer"] == "user: x "


def test_openais_client_gets_several_answers(client):
    def ask(**fields):
        messages = turn({"type": "text", "text": "a"})
        return client.chat.completions.create(model="echo", messages=messages, temperature=1, **fields)

    reply = ask(n=3, seed=2**63 - 2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    # The seeds count up from the request's own, so that the answers differ.
    seeds = (2**63 - 2, 2**63 - 1, -(2**63))
    assert [choice.message.content for choice in reply.choices] == [f"user: a t=1,p=None,s={seed} " for seed in seeds]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (1, 9, 10)
    texts, reasons = ["", "", ""], {}
    with ask(n=3, seed=5, stream=True, stream_options={"include_usage": True}) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
    assert texts == [f"user: a t=1,p=None,s={seed} " for seed in (5, 6, 7)]
    assert reasons == dict.fromkeys(range(3), "stop") and chunk.usage.completion_tokens == 9
    with pytest.raises(openai.UnprocessableEntityError, match="the 8 allowed"):
        ask(n=9)


def test_openais_client_stops_at_its_texts(client):
    def ask(stop, **fields):
        messages = turn({"type": "text", "text": "one two three four"})
        return client.chat.completions.create(model="echo", messages=messages, stop=stop, **fields)

    def streamed(stop, **fields):
        with ask(stop, stream=True, **fields) as stream:
            choices = [chunk.choices[0] for chunk in stream]
        return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason

    for stop, text, tokens in (
        ("three", "user: one two ", 4),
        ("two three", "user: one ", 4),  # over two tokens, whose first is held back
        (["nothing", "e t"], "user: on", 3),
        ("wo thirty", "user: one two three four ", 5),
        ("four ", "user: one two three ", 5),
        ("four !", "user: one two three four ", 5),
        ("user", "", 1),
        ([], "user: one two three four ", 5),
    ):
        reply = ask(stop)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, "stop"), stop
        assert reply.usage.completion_tokens == tokens, stop
        assert streamed(stop) == (text, "stop")
    # At the limit of tokens: "stop" only where the text was reached.
    assert ask("two", max_tokens=3).choices[0].finish_reason == "stop"
    cut = ask("two three", max_tokens=3).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("user: one two ", "length")
    assert streamed("two three", max_tokens=3) == ("user: one two ", "length")


def test_the_model_stops_at_a_stop_text(client, echo_model):
    messages = turn({"type": "text", "text": "halt " + "word " * 200})
    echo_model.hold_at = 3
    client.chat.completions.create(model="echo", messages=messages, stop="halt")  # the reply does not wait for step 3
    echo_model.hold_at = None
    echo_model.go.set()
    wait_until(lambda: echo_model.closed == 1)
    assert echo_model.steps < 10


def test_the_oldest_turns_are_left_out_on_request(echo_model):
    """Beyond the context the request chooses between an error and a shorter history, and the service has a default."""
    echo_model.context_length = 40
    system = {"role": "system", "content": "be brief"}

    def history(turns):
        for number in range(turns):
            yield {"role": "user", "content": f"question {number} has six words here"}
            yield {"role": "assistant", "content": f"answer {number}"}

    messages = [system, *history(8), {"role": "user", "content": "the last question"}]
    http = openai.DefaultHttpxClient(verify=False, trust_env=False)
    for default, field in (("disabled", {"truncation": "auto"}), ("auto", {})):
        with running(echo_model, truncation=default) as (url, _):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)
            reply = client.chat.completions.create(model="echo", messages=messages, extra_body=field)
            text = reply.choices[0].message.content
            # The system message and the last turn stay; an open answer gets ten tokens.
            assert text.startswith("system: be brief user: question 5 has") and reply.dropped_messages == 10
            assert reply.usage.prompt_tokens == 2 + 3 * 8 + 3 <= 30
            exact = client.chat.completions.create(model="echo", messages=messages, max_tokens=3, extra_body=field)
            assert exact.dropped_messages == 8
            with pytest.raises(openai.BadRequestError, match="truncation"):
                client.chat.completions.create(model="echo", messages=messages, extra_body={"truncation": "disabled"})
            alone = [{"role": "user", "content": "word " * 41}]
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="echo", messages=alone, extra_body=field)
            with client.chat.completions.create(
                model="echo", messages=messages, extra_body=field, stream=True
            ) as stream:
                assert {chunk.dropped_messages for chunk in stream} == {10}
            # A stored conversation goes on without end, and remains short.
            name = None
            for number in range(12):
                body = {"message": f"{number} a b c", "max_new_tokens": 6} | field
                reply = HTTP.post(f"{url}/chat", json=body | ({"conversation_id": name} if name else {})).json()
                name = reply["conversation_id"]
            assert reply["usage"]["prompt_tokens"] <= 34 and reply["dropped_messages"] == 2


def test_head_is_get_without_a_body(served):
    url, _ = served
    for path in ("/health", "/metrics", "/v1/models", "/v1/models/echo", "/openapi.json"):
        head, get = HTTP.head(url + path), HTTP.get(url + path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (200, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    assert HTTP.head(f"{url}/chat").status_code == 405 and HTTP.head(f"{url}/none").status_code == 404


def test_requests_with_sampling_values_too_small_for_32_bits(client):
    for fields in ({"temperature": 1e-39}, {"temperature": 5e-324}, {"temperature": 1, "top_p": 1e-320}):
        messages = turn({"type": "text", "text": "a"})
        assert client.chat.completions.create(model="echo", messages=messages, **fields).choices


@pytest.mark.parametrize("source", ["settings", "environment"])
def test_a_key_is_required_where_one_is_set(echo_model, monkeypatch, source):
    settings = Settings(api_key="right") if source == "settings" else Settings()
    monkeypatch.setenv(API_KEY_VARIABLE, "wrong" if source == "settings" else "right")
    key = with_api_key(settings).api_key
    with running(echo_model, api_key=key) as (url, _):
        http = openai.DefaultHttpxClient(verify=False, trust_env=False)

        def ask(key):
            client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)
            return client.chat.completions.create(model="echo", messages=turn({"type": "text", "text": "a"}))

        assert ask("right").choices[0].message.content == "user: a "
        for wrong in ("wrong", "righter", "rights", "Right"):
            with pytest.raises(openai.AuthenticationError) as caught:
                ask(wrong)
            assert caught.value.code == "invalid_api_key" and "right" not in caught.value.message
        for path in ("/chat", "/caption", "/v1/models", "/metrics", "/openapi.json", "/none"):
            reply = HTTP.post(url + path) if path in ("/chat", "/caption") else HTTP.get(url + path)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), path
        for header in ("", "right", "Basic right", "Bearer", "Bearer right right"):
            assert HTTP.get(f"{url}/v1/models", headers={"authorization": header}).status_code == 401
        assert HTTP.get(f"{url}/v1/models", headers={"authorization": "bearer right"}).status_code == 200
        assert HTTP.get(f"{url}/health").status_code == 200
        assert echo_model.batches == [1]


def test_a_bad_key_in_the_environment_is_named(monkeypatch):
    for key in ("", "two words"):
        monkeypatch.setenv(API_KEY_VARIABLE, key)
        with pytest.raises(CourseError, match=API_KEY_VARIABLE):
            serve(lambda: None, port=0)


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
        (openai.UnprocessableEntityError, "invalid_request", lambda: ask(tools=[TOOL])),
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
        assert echo_model.held.wait(60)  # the model is paused, and these tokens have arrived
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
        b"GET /nothing HTTP/9.9\r\n\r\n",
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
