"""A few thousand valid requests, damaged in many ways: no crash, no leak between clients.

Each mutated request goes through the complete application. Every response has no status 500, reveals nothing about this
machine, lets no memory grow and contains no text of another conversation.
"""

import asyncio
import base64
import copy
import gc
import io
import json
import random
import zlib

import httpx
from PIL import Image

REQUESTS, CLIENTS = 3000, 40
# So different from each other that no mutation turns one into another.
WORDS = [f"word{zlib.crc32(bytes([number])):08x}" for number in range(CLIENTS)]
EXPECTED = {200, 400, 404, 405, 408, 409, 413, 415, 422, 429, 503, 504}


def image(kind: str, size=(9, 7)) -> bytes:
    file = io.BytesIO()
    Image.new("CMYK" if kind == "JPEG" else "RGB", size, 7).save(file, kind)
    return file.getvalue()


IMAGES = [image("PNG"), image("JPEG"), image("GIF"), image("WEBP"), image("PNG", (1, 1)), image("PNG", (20_000, 1))]
STRANGE = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(10**30),
    0.5,
    1e308,
    "",
    " ",
    "x",
    "\ud800",
    "\0",
    "é" * 50,
    "😀",
    "null",
    "../../etc/passwd",
    "<image>",
    "{{7*7}}",
    "%s%n",
    [],
    {},
    [[]],
    [{}],
    {"": ""},
    {"url": "http://127.0.0.1/"},
    "data:image/png;base64,",
    "data:image/png;base64,AAAA",
    "http://127.0.0.1:22/",
    "word " * 300,
    "x" * 20_000,
]


def valid_request(draw: random.Random, own_word: str, name: str | None) -> tuple[str, dict]:
    """Return path and fields of a valid request. `own_word` occurs in no other client's requests."""
    text = base64.b64encode(draw.choice(IMAGES)).decode()
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + text, "detail": "auto"}}
    turns = [
        {"role": "system", "content": own_word},
        {"role": "user", "content": [{"type": "text", "text": own_word}, part]},
    ]
    return draw.choice(
        [
            ("/chat", {"message": own_word, "image": text} | ({"conversation_id": name} if name else {})),
            ("/chat", {"message": own_word, "temperature": 0.5, "top_p": 0.9, "seed": 1, "max_new_tokens": 9}),
            ("/v1/chat/completions", {"model": "echo", "messages": turns, "max_tokens": 20, "stream": False}),
            (
                "/v1/chat/completions",
                {"model": "echo", "messages": turns[1:], "stream": True, "stream_options": {"include_usage": True}},
            ),
            ("/caption", {"temperature": "1"}),
            ("/question", {"question": own_word, "max_new_tokens": "5", "seed": "3"}),
        ]
    )


def json_paths(value: object, path: tuple = ()) -> list[tuple]:
    """Return the path of every value in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [inner_path for key, each in inner for inner_path in json_paths(each, (*path, key))]


def mutate_field(draw: random.Random, document: dict) -> None:
    """Replace, remove or repeat one field of a document, or add a field beside it."""
    if not document:
        return
    *parents, last = draw.choice(json_paths(document))
    holder = document
    for key in parents:
        holder = holder[key]
    mutation = draw.randrange(5)
    if mutation == 0 and isinstance(holder, dict):
        holder.pop(last, None)
    elif mutation == 1 and isinstance(holder, list):
        holder.extend([holder[last]] * draw.choice([1, 30, 600]))
    elif mutation == 2 and isinstance(holder, dict):
        holder[draw.choice(["", "x", "role", "\ud83d", "__class__", "a" * 300])] = copy.deepcopy(draw.choice(STRANGE))
    elif mutation == 3 and isinstance(holder[last], str) and holder[last]:
        at, text = draw.randrange(len(holder[last])), holder[last]
        holder[last] = text[:at] + draw.choice(["", "=", "\n", "%", "é", text]) + text[at + draw.randrange(3) :]
    else:
        holder[last] = copy.deepcopy(draw.choice(STRANGE))


def damage(draw: random.Random, body: bytes) -> bytes:
    """Remove, change, repeat or insert bytes."""
    damaged = bytearray(body)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(damaged) + 1)
        mutation = draw.randrange(5)
        if mutation == 0:
            del damaged[at:]
        elif mutation == 1:
            damaged[at : at + draw.randrange(1, 9)] = b""
        elif mutation == 2:
            damaged[at:at] = draw.choice([b"\0", b"\xff\xfe", b"[" * 500, b'"', b"\r\n--", b"{}", bytes(damaged[:50])])
        elif at < len(damaged):
            damaged[at] = draw.randrange(256)
    return bytes(damaged)


def mutated_request(draw: random.Random, own_word: str, name: str | None) -> tuple[str, str, list, list]:
    """Return a mutated request: method, path, headers, body in pieces."""
    path, fields = valid_request(draw, own_word, name)
    if path in ("/caption", "/question"):
        data = draw.choice(IMAGES)
        if draw.random() < 0.4:
            data = damage(draw, data)
        for _ in range(draw.randrange(2)):
            mutate_field(draw, fields)
        files = {draw.choice(["image"] * 9 + ["file"]): (draw.choice(["a.png", "../x", 'b"\r\n']), data)}
        form = {key.encode("utf-8", "replace").decode(): str(fields[key]).encode("utf-8", "replace") for key in fields}
        message = httpx.Request("POST", "http://service", data=form, files=files)
        headers, body = list(message.headers.raw), message.read()
    else:
        for _ in range(draw.choice([0, 1, 1, 2, 4])):
            mutate_field(draw, fields)
        headers, body = [(b"Content-Type", b"application/json")], json.dumps(fields).encode()
    if draw.random() < 0.3:
        body = damage(draw, body)
    if draw.random() < 0.1:
        at = draw.randrange(len(headers))
        headers[at] = (headers[at][0], damage(draw, headers[at][1]))
    if draw.random() < 0.05:
        headers.append((b"content-length", draw.choice([b"0", b"-1", b"9" * 40, b"x"])))
    method = draw.choice(["POST"] * 20 + ["GET", "PUT", "HEAD", "OPTIONS", "BREW"])
    path = draw.choice([path] * 20 + ["/", "//chat", path + "/", "/chat/../health", "/" + "a" * 3000, "/%00", "/é"])
    pieces = [body] if draw.random() < 0.8 else [body[:9], b"", body[9:]]
    return method, path, headers, [*pieces[:-1], None] if draw.random() < 0.03 else pieces


def check(reply, path: str, own_word: str) -> None:
    """Check what holds for every response."""
    if not reply.status:
        return  # a client that disconnected gets no response
    text = reply.body.decode()
    assert reply.status in EXPECTED, (reply.status, path, text)
    assert reply.ended and (reply.status != 503 or reply.code == "model_failed" or not text), text
    for leak in ("Traceback", "site-packages", "/secret", "shared/serving", "RuntimeError", "0x7f"):
        assert leak not in text, text
    if reply.status >= 400 and text:
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}, text
        assert len(text) < 2000
    # Every client has a word of its own, and receives no other client's word.
    assert not [word for word in WORDS if word in text and word != own_word], (own_word, text)


def test_mutated_requests(running_app):
    async def main():
        draws = [random.Random(number) for number in range(CLIENTS)]
        statuses: dict[int, int] = {}
        names: list[str | None] = [None] * CLIENTS
        async with running_app(
            max_conversations=20,
            max_conversation_bytes=200_000,
            max_body_bytes=200_000,
            max_pixels=1_000_000,
            batch_wait=0,
        ) as client:
            store = client.service.answers.conversations

            async def one(number: int) -> None:
                own_word, draw = WORDS[number], draws[number]
                method, path, headers, chunks = mutated_request(draw, own_word, names[number])
                disconnected = asyncio.Event()
                if draw.random() < 0.03:
                    asyncio.get_running_loop().call_later(0.001, disconnected.set)
                reply = await client.ask(method, path, headers=headers, chunks=chunks, disconnected=disconnected)
                check(reply, path, own_word)
                statuses[reply.status] = statuses.get(reply.status, 0) + 1
                if reply.status == 200 and path == "/chat" and method == "POST":
                    names[number] = draw.choice([reply.json()["conversation_id"], names[number]])
                assert len(store) <= 20 and store.bytes <= 200_000

            for _ in range(REQUESTS // CLIENTS):
                await asyncio.gather(*map(one, range(CLIENTS)))
            # No request is in progress, and the service still works.
            count = client.service.metrics.registry.get_sample_value
            assert count("service_requests_in_progress") == count("service_requests_waiting") == 0
            assert (await client.post("/chat", message="still there?")).status == 200
            gc.collect()
            images = sum(isinstance(each, Image.Image) for each in gc.get_objects())
            stored = sum(len(m.images) for c in store._by_id.values() for m in c.history)
            assert images <= stored + 5
        assert statuses[200] > REQUESTS // 10 and {400, 404, 413, 415, 422} <= set(statuses), statuses
        assert len(client.model.batches) > 100 and max(client.model.batches) > 1

    asyncio.run(main())
