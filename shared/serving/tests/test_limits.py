"""Bodies that are too large, too slow or never end; clients that leave; and a house that is full."""

import asyncio
import json

JSON = [(b"content-type", b"application/json")]
HELLO = b'{"message": "one two three"}'
STREAM = json.dumps(
    {"model": "parrot", "messages": [{"role": "user", "content": "word " * 20}], "stream": True}
).encode()


async def until(true) -> None:
    while not true():
        await asyncio.sleep(0.001)


def test_a_body_comes_in_pieces(house):
    async def main():
        async with house() as here:
            pieces = [HELLO[at : at + 1] for at in range(len(HELLO))]
            reply = await here.ask("POST", "/chat", headers=JSON, chunks=[*pieces, b""])
        assert reply.json()["answer"] == "user: one two three "

    asyncio.run(main())


def test_a_body_is_counted_whatever_its_length_is_said_to_be(house):
    async def main():
        async with house(body_bytes=1000) as here:
            taken = 0

            async def more():
                nonlocal taken
                taken += 1
                return b"x" * 100

            for declared in (b"10", b"1000", b"-5", b"many", b""):
                taken = 0
                headers = [*JSON, (b"content-length", declared)]
                reply = await here.ask("POST", "/chat", headers=headers, chunks=[more] * 500)
                assert (reply.status, reply.code, reply.ended) == (413, "body_too_large", True)
                # Some of it is read on, so that the client sees the answer; but not all that it would send.
                assert 40 < taken <= 11 + 41
            for declared in (b"1001", b"9" * 30, b"9" * 5000):
                arrived = [*JSON, (b"content-length", declared), (b"expect", b"100-continue")]
                taken = 0
                reply = await here.ask("POST", "/chat", headers=arrived, chunks=[more] * 500)
                assert (reply.status, taken) == (413, 0)  # who asks first, need not send it
            exact = b'{"message": "' + b"x" * 985 + b'"}'
            assert len(exact) == 1000
            assert (await here.ask("POST", "/chat", headers=JSON, chunks=[exact])).status == 200

    asyncio.run(main())


def test_a_body_that_never_comes(house):
    async def main():
        async with house(upload_seconds=0.05) as here:
            never = asyncio.Event().wait
            reply = await here.ask("POST", "/chat", headers=JSON, chunks=[b"{", never, b"}"])
            assert (reply.status, reply.code, reply.ended) == (408, "upload_too_slow", True)
            assert here.service.metrics.registry.get_sample_value("service_requests_in_house") == 0

    asyncio.run(main())


def test_a_full_house_still_tells_how_it_is(house):
    async def main():
        async with house(concurrent=2, rows=1, gather_seconds=0) as here:
            here.speaker.go.clear()
            asking = [asyncio.create_task(here.post("/chat", message="x")) for _ in range(2)]
            await until(lambda: here.speaker.steps == 1)
            replies = [await here.post("/chat", message="y"), await here.get("/v1/models"), await here.get("/nowhere")]
            assert {reply.status for reply in replies} == {429}
            assert (await here.get("/health")).status == (await here.get("/metrics")).status == 200
            here.speaker.go.set()
            assert [reply.status for reply in await asyncio.gather(*asking)] == [200, 200]
            assert (await here.post("/chat", message="y")).status == 200

    asyncio.run(main())


def test_who_leaves_while_sending(house):
    async def main():
        async with house() as here:
            for chunks in ([None], [b"{", None], [HELLO, None]):
                reply = await here.ask("POST", "/chat", headers=JSON, chunks=chunks)
                assert not reply.status
            metrics = here.service.metrics.registry
            assert metrics.get_sample_value("service_requests_in_house") == 0 and not here.speaker.steps
            assert metrics.get_sample_value("service_hung_up_total") == 3

    asyncio.run(main())


def test_who_leaves_before_the_answer_is_not_remembered(house, reply):
    async def main():
        async with house(gather_seconds=0) as here:
            here.speaker.go.clear()
            left, answer = asyncio.Event(), reply()
            asking = asyncio.create_task(
                here.ask("POST", "/chat", headers=JSON, chunks=[HELLO], left=left, reply=answer)
            )
            await until(lambda: here.speaker.steps == 1)
            left.set()
            await asking
            here.speaker.go.set()
            await until(lambda: here.speaker.closed == 1)
            assert not answer.status and len(here.service.answering.conversations) == 0
            metrics = here.service.metrics.registry
            assert metrics.get_sample_value("service_hung_up_total") == 1
            assert metrics.get_sample_value("service_requests_in_house") == 0
            assert metrics.get_sample_value("service_requests_total", {"path": "/chat", "status": "left"}) == 1

    asyncio.run(main())


def test_who_leaves_in_the_midst_of_a_stream_stops_it(house, reply):
    async def main():
        async with house(gather_seconds=0) as here:
            left, answer = asyncio.Event(), reply()
            here.speaker.hold_at = 3
            asking = asyncio.create_task(
                here.ask("POST", "/v1/chat/completions", headers=JSON, chunks=[STREAM], left=left, reply=answer)
            )
            await until(lambda: answer.body.count(b"word") == 2)
            left.set()
            await asking
            here.speaker.hold_at = None
            here.speaker.go.set()
            await until(lambda: here.speaker.closed == 1)
            assert b"[DONE]" not in answer.body and not answer.ended
            assert (await here.post("/chat", message="and now?")).status == 200

    asyncio.run(main())


def test_who_reads_too_slowly_is_cut_off(house):
    async def main():
        async with house(seconds=1.0) as here:
            sent = []

            async def send(message):
                sent.append(message)
                if len(sent) > 3:
                    await asyncio.Event().wait()  # its window is full, and stays so

            arriving = [{"type": "http.request", "body": STREAM, "more_body": False}]

            async def receive():
                return arriving.pop() if arriving else await asyncio.Event().wait()

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/v1/chat/completions",
                "headers": JSON,
                "query_string": b"",
            }
            await here.app(scope, receive, send)
            assert len(sent) == 4
            assert here.service.metrics.registry.get_sample_value("service_requests_in_house") == 0

    asyncio.run(main())
