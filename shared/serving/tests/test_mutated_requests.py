"""A few thousand requests that were right once, damaged in every way at hand: nothing falls over, nobody meets.

Each mutated request goes through the whole application. Whatever it says: no 500, no word about this machine, no
memory that grows, no conversation that hears another's words.
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
# So unlike each other that no mutation makes one into another.
WORDS = [f"word{zlib.crc32(bytes([number])):08x}" for number in range(CLIENTS)]
EXPECTED = {200, 400, 404, 405, 408, 409, 413, 415, 422, 429, 503, 504}


def image(kind: str, size=(9, 7)) -> bytes:
    file = io.BytesIO()
    Image.new("CMYK" if kind == "JPEG" else "RGB", size, 7).save(file, kind)
    return file.getvalue()


IMAGES = [image("PNG"), image("JPEG"), image("GIF"), image("WEBP"), image("PNG", (1, 1)), image("PNG", (20_000, 1))]
STRANGE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(10**30), 0.5, 1e308, "", " ", "x", "\ud800", "\0", "é" * 50, "😀",
    "null", "../../etc/passwd", "<image>", "{{7*7}}", "%s%n", [], {}, [[]], [{}], {"": ""}, {"url": "http://127.0.0.1/"},
    "data:image/png;base64,", "data:image/png;base64,AAAA", "http://127.0.0.1:22/", "word " * 300, "x" * 20_000,
]  # fmt: skip


def seeds(draw: random.Random, mine: str, name: str | None) -> tuple[str, dict]:
    """A right request: where it goes and what it says. `mine` is a word that no other client says."""
    text = base64.b64encode(draw.choice(IMAGES)).decode()
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + text, "detail": "auto"}}
    turns = [{"role": "system", "content": mine}, {"role": "user", "content": [{"type": "text", "text": mine}, part]}]
    return draw.choice(
        [
            ("/chat", {"message": mine, "image": text} | ({"conversation_id": name} if name else {})),
            ("/chat", {"message": mine, "temperature": 0.5, "top_p": 0.9, "seed": 1, "max_new_tokens": 9}),
            ("/v1/chat/completions", {"model": "parrot", "messages": turns, "max_tokens": 20, "stream": False}),
            (
                "/v1/chat/completions",
                {"model": "parrot", "messages": turns[1:], "stream": True, "stream_options": {"include_usage": True}},
            ),
            ("/caption", {"temperature": "1"}),
            ("/question", {"question": mine, "max_new_tokens": "5", "seed": "3"}),
        ]
    )


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, each in inner for place in places(each, (*path, key))]


def change(draw: random.Random, document: dict) -> None:
    """One field of a document becomes something else, is lost, doubled, or gets a neighbor."""
    if not document:
        return
    *way, last = draw.choice(places(document))
    holder = document
    for key in way:
        holder = holder[key]
    what = draw.randrange(5)
    if what == 0 and isinstance(holder, dict):
        holder.pop(last, None)
    elif what == 1 and isinstance(holder, list):
        holder.extend([holder[last]] * draw.choice([1, 30, 600]))
    elif what == 2 and isinstance(holder, dict):
        holder[draw.choice(["", "x", "role", "\ud83d", "__class__", "a" * 300])] = copy.deepcopy(draw.choice(STRANGE))
    elif what == 3 and isinstance(holder[last], str) and holder[last]:
        at, text = draw.randrange(len(holder[last])), holder[last]
        holder[last] = text[:at] + draw.choice(["", "=", "\n", "%", "é", text]) + text[at + draw.randrange(3) :]
    else:
        holder[last] = copy.deepcopy(draw.choice(STRANGE))


def scratch(draw: random.Random, body: bytes) -> bytes:
    """Bytes lost, changed, doubled or put in."""
    spoilt = bytearray(body)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(spoilt) + 1)
        what = draw.randrange(5)
        if what == 0:
            del spoilt[at:]
        elif what == 1:
            spoilt[at : at + draw.randrange(1, 9)] = b""
        elif what == 2:
            spoilt[at:at] = draw.choice([b"\0", b"\xff\xfe", b"[" * 500, b'"', b"\r\n--", b"{}", bytes(spoilt[:50])])
        elif at < len(spoilt):
            spoilt[at] = draw.randrange(256)
    return bytes(spoilt)


def request(draw: random.Random, mine: str, name: str | None) -> tuple[str, str, list, list]:
    """A mutated request: method, path, headers, body in pieces."""
    path, fields = seeds(draw, mine, name)
    if path in ("/caption", "/question"):
        picture = draw.choice(IMAGES)
        if draw.random() < 0.4:
            picture = scratch(draw, picture)
        for _ in range(draw.randrange(2)):
            change(draw, fields)
        files = {draw.choice(["image"] * 9 + ["file"]): (draw.choice(["a.png", "../x", 'b"\r\n']), picture)}
        form = {key.encode("utf-8", "replace").decode(): str(fields[key]).encode("utf-8", "replace") for key in fields}
        made = httpx.Request("POST", "http://here", data=form, files=files)
        headers, body = list(made.headers.raw), made.read()
    else:
        for _ in range(draw.choice([0, 1, 1, 2, 4])):
            change(draw, fields)
        headers, body = [(b"Content-Type", b"application/json")], json.dumps(fields).encode()
    if draw.random() < 0.3:
        body = scratch(draw, body)
    if draw.random() < 0.1:
        at = draw.randrange(len(headers))
        headers[at] = (headers[at][0], scratch(draw, headers[at][1]))
    if draw.random() < 0.05:
        headers.append((b"content-length", draw.choice([b"0", b"-1", b"9" * 40, b"x"])))
    method = draw.choice(["POST"] * 20 + ["GET", "PUT", "HEAD", "OPTIONS", "BREW"])
    path = draw.choice([path] * 20 + ["/", "//chat", path + "/", "/chat/../health", "/" + "a" * 3000, "/%00", "/é"])
    pieces = [body] if draw.random() < 0.8 else [body[:9], b"", body[9:]]
    return method, path, headers, [*pieces[:-1], None] if draw.random() < 0.03 else pieces


def check(reply, path: str, mine: str) -> None:
    """What holds of every answer, whatever was asked."""
    if not reply.status:
        return  # who has left is not answered
    said = reply.body.decode()
    assert reply.status in EXPECTED, (reply.status, path, said)
    assert reply.ended and (reply.status != 503 or reply.code == "model_failed" or not said), said
    for leak in ("Traceback", "site-packages", "/secret", "shared/serving", "RuntimeError", "0x7f"):
        assert leak not in said, said
    if reply.status >= 400 and said:
        assert set(json.loads(said)["error"]) == {"message", "type", "param", "code"}, said
        assert len(said) < 2000
    # Every client says a word of its own, and hears no other's.
    assert not [word for word in WORDS if word in said and word != mine], (mine, said)


def test_mutated_requests(house):
    async def main():
        draws = [random.Random(number) for number in range(CLIENTS)]
        statuses: dict[int, int] = {}
        names: list[str | None] = [None] * CLIENTS
        async with house(
            conversations=20, conversation_bytes=200_000, body_bytes=200_000, pixels=1_000_000, gather_seconds=0
        ) as here:
            store = here.service.answering.conversations

            async def one(number: int) -> None:
                mine, draw = WORDS[number], draws[number]
                method, path, headers, chunks = request(draw, mine, names[number])
                left = asyncio.Event()
                if draw.random() < 0.03:
                    asyncio.get_running_loop().call_later(0.001, left.set)
                reply = await here.ask(method, path, headers=headers, chunks=chunks, left=left)
                check(reply, path, mine)
                statuses[reply.status] = statuses.get(reply.status, 0) + 1
                if reply.status == 200 and path == "/chat" and method == "POST":
                    names[number] = draw.choice([reply.json()["conversation_id"], names[number]])
                assert len(store) <= 20 and store.bytes <= 200_000

            for _ in range(REQUESTS // CLIENTS):
                await asyncio.gather(*map(one, range(CLIENTS)))
            # Nobody is left in the house, and it is as it was.
            count = here.service.metrics.registry.get_sample_value
            assert count("service_requests_in_house") == count("service_requests_waiting") == 0
            assert (await here.post("/chat", message="still there?")).status == 200
            gc.collect()
            pictures = sum(isinstance(scene_object, Image.Image) for scene_object in gc.get_objects())
            remembered = sum(len(m.images) for c in store._by_name.values() for m in c.history)
            assert pictures <= remembered + 5
        assert statuses[200] > REQUESTS // 10 and {400, 404, 413, 415, 422} <= set(statuses), statuses
        assert len(here.speaker.batches) > 100 and max(here.speaker.batches) > 1

    asyncio.run(main())
