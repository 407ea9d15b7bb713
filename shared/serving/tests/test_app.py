"""Every path of the service: its answers, its errors and its limits."""

import asyncio
import base64
import io
import json
import re

from PIL import Image

from shared.serving.errors import STATUS


def png(size=(8, 6), color=(255, 0, 0)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def completion(text, **others) -> dict:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **others}


def test_caption_and_question_receive_the_image(running_app):
    async def main():
        async with running_app() as client:
            caption = await client.post("/caption", files={"image": png()})
            question = await client.post(
                "/question",
                form={"question": "what color?", "temperature": "0.5", "top_p": "0.9", "seed": "7"},
                files={"image": ("x.png", png(color=(0, 0, 255)))},
            )
            short = await client.post(
                "/question", form={"question": "a b c", "max_new_tokens": "2"}, files={"image": png()}
            )
        assert caption.status == question.status == 200
        assert caption.json() == {
            "caption": "user: [8x6,255,0,0] Describe the image. ",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        }
        assert question.json()["answer"] == "user: [8x6,0,0,255] what color? t=0.5,p=0.9,s=7 "
        assert short.json()["answer"] == "user: [8x6,255,0,0] "
        assert short.json()["finish_reason"] == "length" and short.json()["usage"]["completion_tokens"] == 2

    asyncio.run(main())


def test_a_conversation_stores_texts_and_images(running_app):
    async def main():
        async with running_app() as client:
            first = (await client.post("/chat", message="look", image=base64.b64encode(png()).decode())).json()
            second = (await client.post("/chat", message="more", conversation_id=first["conversation_id"])).json()
            other = (await client.post("/chat", message="new", image=data_url(png(color=(0, 255, 0))))).json()
            third = (await client.post("/chat", message="end", conversation_id=first["conversation_id"])).json()
        assert first["answer"] == "user: [8x6,255,0,0] look "
        assert second["answer"] == "user: [8x6,255,0,0] look assistant: user: [8x6,255,0,0] look user: more "
        assert second["conversation_id"] == first["conversation_id"] != other["conversation_id"]
        assert other["answer"] == "user: [8x6,0,255,0] new "
        assert third["answer"].endswith("user: more user: end ") and "new" not in third["answer"]

    asyncio.run(main())


def test_a_failed_turn_is_not_stored(running_app):
    async def main():
        async with running_app() as client:
            name = (await client.post("/chat", message="one")).json()["conversation_id"]
            for message in ("poison", "riddle", "word " * 500):
                assert (await client.post("/chat", message=message, conversation_id=name)).status >= 400
            assert (await client.post("/chat", message="poison")).status == 503
            assert len(client.service.answers.conversations) == 1
            last = (await client.post("/chat", message="two", conversation_id=name)).json()
        assert last["answer"] == "user: one assistant: user: one user: two "

    asyncio.run(main())


def test_a_conversation_answers_one_message_at_a_time(running_app):
    async def main():
        async with running_app() as client:
            name = (await client.post("/chat", message="one")).json()["conversation_id"]
            client.model.go.clear()
            asking = asyncio.create_task(client.post("/chat", message="two", conversation_id=name))
            client.model.stepped.clear()
            await asyncio.to_thread(client.model.stepped.wait)
            meanwhile = await client.post("/chat", message="three", conversation_id=name)
            client.model.go.set()
            assert (meanwhile.status, meanwhile.code) == (409, "conversation_busy")
            assert (await asking).json()["answer"].endswith("user: two ")
            assert (await client.post("/chat", message="four", conversation_id=name)).status == 200

    asyncio.run(main())


def test_completions_have_openais_form(running_app):
    async def main():
        async with running_app() as client:
            turns = [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what is"},
                        {"type": "image_url", "image_url": {"url": data_url(png()), "detail": "low"}},
                        {"type": "text", "text": "this?"},
                    ],
                },
            ]
            reply = (await client.post("/v1/chat/completions", model="echo", messages=turns, max_tokens=50)).json()
            models = (await client.get("/v1/models")).json()
        assert re.fullmatch(r"chatcmpl-\w{24}", reply["id"]) and reply["object"] == "chat.completion"
        assert reply["choices"][0]["finish_reason"] == "stop"
        message = reply["choices"][0]["message"]
        assert message["role"] == "assistant"
        assert message["content"] == "system: be brief user: hello assistant: hi user: [8x6,255,0,0] what is this? "
        assert reply["usage"] == {"prompt_tokens": 11, "completion_tokens": 12, "total_tokens": 23}
        assert [model["id"] for model in models["data"]] == ["echo"]

    asyncio.run(main())


def test_a_stream_has_the_same_text_in_pieces(running_app):
    async def main():
        async with running_app() as client:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            reply = await client.post("/v1/chat/completions", **completion("a b c", **options))
            silent = await client.post("/v1/chat/completions", **completion("silence", stream=True))
        assert reply.status == 200 and reply.headers["content-type"].startswith("text/event-stream") and reply.ended
        events = reply.body.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert [delta.get("content") for delta in deltas[1:]] == ["user: ", "a ", "b ", "c ", None]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 5 + ["stop"]
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 4
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert silent.status == 200 and silent.body.count(b"data:") == 3

    asyncio.run(main())


def test_a_stream_that_fails_ends_with_an_error(running_app):
    async def main():
        async with running_app() as client:
            reply = await client.post("/v1/chat/completions", **completion("choke on this", stream=True))
            before = await client.post("/v1/chat/completions", **completion("poison", stream=True))
        assert reply.status == 200 and b"[DONE]" not in reply.body
        last = json.loads(reply.body.decode().strip().rpartition("data: ")[2])
        assert last["error"]["code"] == "model_failed" and "secret" not in reply.body.decode()
        # An error before the first token has its own status.
        assert before.status == 503 and before.headers["content-type"] == "application/json"

    asyncio.run(main())


REFUSED = {
    "no file": ("/caption", {"form": {"max_new_tokens": "3"}}, "invalid_request"),
    "text instead of an image": ("/caption", {"form": {}, "files": {"image": b"hello"}}, "not_an_image"),
    "empty file": ("/caption", {"files": {"image": b""}}, "not_an_image"),
    "half an image": ("/caption", {"files": {"image": png()[:-30]}}, "broken_image"),
    "no question": ("/question", {"files": {"image": png()}}, "invalid_request"),
    "a blank question": ("/question", {"form": {"question": "  "}, "files": {"image": png()}}, "invalid_request"),
    "an unknown field": ("/caption", {"form": {"temprature": "1"}, "files": {"image": png()}}, "invalid_request"),
    "no number": ("/caption", {"form": {"temperature": "hot"}, "files": {"image": png()}}, "invalid_request"),
    "not a number": ("/caption", {"form": {"temperature": "nan"}, "files": {"image": png()}}, "invalid_request"),
    "two files": ("/caption", {"files": [("image", png()), ("other", png())]}, "broken_form"),
    "JSON where a form belongs": ("/caption", {"image": "x"}, "wrong_content_type"),
    "a form where JSON belongs": ("/chat", {"form": {"message": "x"}}, "wrong_content_type"),
    "no message": ("/chat", {}, "invalid_request"),
    "a number as message": ("/chat", {"message": 3}, "invalid_request"),
    "true as a number": ("/chat", {"message": "x", "max_new_tokens": True}, "invalid_request"),
    "broken base64": ("/chat", {"message": "x", "image": "###"}, "broken_base64"),
    "base64 cut short": ("/chat", {"message": "x", "image": base64.b64encode(png()).decode()[:-3]}, "broken_base64"),
    "base64 of nothing": ("/chat", {"message": "x", "image": ""}, "not_an_image"),
    "another kind of data": ("/chat", {"message": "x", "image": "data:text/html;base64,AAAA"}, "invalid_request"),
    "an unknown conversation": ("/chat", {"message": "x", "conversation_id": "1"}, "unknown_conversation"),
    "a chosen conversation": ("/chat", {"message": "x", "conversation_id": ""}, "unknown_conversation"),
    "a huge prompt": ("/chat", {"message": "word " * 500}, "context_length_exceeded"),
    "a prompt too long to count": ("/chat", {"message": "x" * 100_000}, "context_length_exceeded"),
    "too long an answer": ("/chat", {"message": "x", "max_new_tokens": 10**6}, "context_length_exceeded"),
    "a context too short for the answer": ("/chat", {"message": "x", "max_new_tokens": 400}, "context_length_exceeded"),
    "a request the model does not support": ("/chat", {"message": "a riddle"}, "refused"),
    "a request the model fails at": ("/chat", {"message": "poison"}, "model_failed"),
    "a request the model cannot count": ("/chat", {"message": "a puzzle"}, "model_failed"),
    "another model": ("/v1/chat/completions", completion("x") | {"model": "gpt"}, "model_not_found"),
    "no messages": ("/v1/chat/completions", {"model": "echo", "messages": []}, "invalid_request"),
    "an unknown role": (
        "/v1/chat/completions",
        {"model": "echo", "messages": [{"role": "tool", "content": "x"}]},
        "invalid_request",
    ),
    "a part of an unknown type with a long name": (
        "/v1/chat/completions",
        completion([{"type": "x" * 5000}]),
        "invalid_request",
    ),
    "a field with a long name": ("/chat", {"message": "x", "y" * 5000: 1}, "invalid_request"),
    "a thousand unknown fields": ("/chat", {f"field {number}": 1 for number in range(1000)}, "invalid_request"),
    "a last message not from the user": (
        "/v1/chat/completions",
        {"model": "echo", "messages": [{"role": "assistant", "content": "x"}]},
        "invalid_request",
    ),
    "too many answers": ("/v1/chat/completions", completion("x", n=9), "invalid_request"),
    "no answer": ("/v1/chat/completions", completion("x", n=0), "invalid_request"),
    "a tool": ("/v1/chat/completions", completion("x", tools=[{"type": "function"}]), "invalid_request"),
    "JSON as format": ("/v1/chat/completions", completion("x", response_format={"type": "json"}), "invalid_request"),
    "an empty stop text": ("/v1/chat/completions", completion("x", stop=""), "invalid_request"),
    "five stop texts": ("/v1/chat/completions", completion("x", stop=list("abcde")), "invalid_request"),
    "a field that changes the answer": ("/v1/chat/completions", completion("x", presence_penalty=1), "invalid_request"),
    "null where a field must be": ("/chat", {"message": None}, "invalid_request"),
    "no such path": ("/admin", {}, "no_such_path"),
    "nearly a path": ("/chat/", {"message": "x"}, "no_such_path"),
    "no such method": ("/health", {}, "method_not_allowed"),
}
REMOTE = ("http://169.254.169.254/latest", "https://example.com/cat.png", "file:///etc/passwd", "data:,x", "//x", "")


def test_bad_requests_get_a_specific_error(running_app):
    async def main():
        async with running_app() as client:
            for case, (path, request, code) in REFUSED.items():
                reply = await client.post(path, **request)
                error = reply.json()["error"]
                assert (reply.status, error["code"]) == (STATUS[code], code), case
                assert set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 500, case
                assert "secret" not in reply.body.decode() and "Traceback" not in reply.body.decode(), case
                assert len(client.service.answers.conversations) == 0, case
            assert (await client.post("/chat", message="and now?")).status == 200

    asyncio.run(main())


def test_no_url_is_fetched(running_app):
    async def main():
        async with running_app() as client:
            for url in REMOTE:
                part = {"type": "image_url", "image_url": {"url": url}}
                reply = await client.post("/v1/chat/completions", **completion([part]))
                assert (reply.status, reply.code) == (422, "invalid_request"), url

    asyncio.run(main())


def test_images_come_from_the_user_and_are_limited_in_number(running_app):
    async def main():
        async with running_app(max_images=2) as client:
            part = {"type": "image_url", "image_url": {"url": data_url(png())}}
            many = await client.post("/v1/chat/completions", **completion([part] * 3))
            some = await client.post("/v1/chat/completions", **completion([part] * 2))
            turns = [{"role": "system", "content": [part]}, {"role": "user", "content": "x"}]
            system = await client.post("/v1/chat/completions", model="echo", messages=turns)
        assert (many.status, some.status, system.status) == (422, 200, 422)

    asyncio.run(main())


def test_each_limit_has_its_own_status(running_app):
    """Body, pixels, tokens, concurrency and time, in this order."""

    async def main():
        async with running_app(
            max_body_bytes=10_000,
            max_pixels=1000,
            max_new_tokens=20,
            max_concurrent=1,
            answer_timeout=5.0,
            batch_wait=0,
        ) as client:
            body = await client.post("/chat", message="x" * 10_000)
            pixels = await client.post("/caption", files={"image": png((100, 11))})
            tokens = await client.post("/chat", message="x", max_new_tokens=21)
            client.model.go.clear()
            asking = asyncio.create_task(client.post("/chat", message="one"))
            await asyncio.to_thread(client.model.stepped.wait)
            concurrency = await client.post("/chat", message="two")
            time = await asking
            client.model.go.set()
            after = await client.post("/chat", message="three")
        replies = (body, pixels, tokens, concurrency, time)
        assert [reply.status for reply in replies] == [413, 422, 400, 429, 504]
        assert len({reply.code for reply in replies}) == 5
        assert concurrency.headers["retry-after"] and after.status == 200

    asyncio.run(main())
