"""Bodies that are too large, too slow or never end; clients that disconnect; too many requests at once."""

import asyncio
import json

JSON = [(b"content-type", b"application/json")]
HELLO = b'{"message": "one two three"}'
STREAM = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "word " * 20}], "stream": True}).encode()


async def wait_until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_body_arrives_in_pieces(running_app):
    async def main():
        async with running_app() as client:
            pieces = [HELLO[at : at + 1] for at in range(len(HELLO))]
            reply = await client.ask("POST", "/chat", headers=JSON, chunks=[*pieces, b""])
        assert reply.json()["answer"] == "user: one two three "

    asyncio.run(main())


def test_a_body_is_counted_whatever_its_declared_length(running_app):
    async def main():
        async with running_app(max_body_bytes=1000) as client:
            chunks_read = 0

            async def more():
                nonlocal chunks_read
                chunks_read += 1
                return b"x" * 100

            for declared in (b"10", b"1000", b"-5", b"many", b""):
                chunks_read = 0
                headers = [*JSON, (b"content-length", declared)]
                reply = await client.ask("POST", "/chat", headers=headers, chunks=[more] * 500)
                assert (reply.status, reply.code, reply.ended) == (413, "body_too_large", True)
                # Some more is read, so that the client receives the error, but not the complete body.
                assert 40 < chunks_read <= 11 + 41
            for declared in (b"1001", b"9" * 30, b"9" * 5000):
                headers = [*JSON, (b"content-length", declared), (b"expect", b"100-continue")]
                chunks_read = 0
                reply = await client.ask("POST", "/chat", headers=headers, chunks=[more] * 500)
                assert (reply.status, chunks_read) == (413, 0)  # with `expect` nothing needs to be sent
            exact = b'{"message": "' + b"x" * 985 + b'"}'
            assert len(exact) == 1000
            assert (await client.ask("POST", "/chat", headers=JSON, chunks=[exact])).status == 200

    asyncio.run(main())


def test_a_body_that_never_arrives(running_app):
    async def main():
        async with running_app(upload_timeout=0.05) as client:
            never = asyncio.Event().wait
            reply = await client.ask("POST", "/chat", headers=JSON, chunks=[b"{", never, b"}"])
            assert (reply.status, reply.code, reply.ended) == (408, "upload_too_slow", True)
            assert client.service.metrics.registry.get_sample_value("service_requests_in_progress") == 0

    asyncio.run(main())


def test_health_and_metrics_answer_beyond_the_limit(running_app):
    async def main():
        async with running_app(max_concurrent=2, max_batch_size=1, batch_wait=0) as client:
            client.model.go.clear()
            requests = [asyncio.create_task(client.post("/chat", message="x")) for _ in range(2)]
            await wait_until(lambda: client.model.steps == 1)
            replies = [
                await client.post("/chat", message="y"),
                await client.get("/v1/models"),
                await client.get("/nowhere"),
            ]
            assert {reply.status for reply in replies} == {429}
            assert (await client.get("/health")).status == (await client.get("/metrics")).status == 200
            client.model.go.set()
            assert [reply.status for reply in await asyncio.gather(*requests)] == [200, 200]
            assert (await client.post("/chat", message="y")).status == 200

    asyncio.run(main())


def test_a_client_that_disconnects_while_sending(running_app):
    async def main():
        async with running_app() as client:
            for chunks in ([None], [b"{", None], [HELLO, None]):
                reply = await client.ask("POST", "/chat", headers=JSON, chunks=chunks)
                assert not reply.status
            metrics = client.service.metrics.registry
            assert metrics.get_sample_value("service_requests_in_progress") == 0 and not client.model.steps
            assert metrics.get_sample_value("service_disconnected_clients_total") == 3

    asyncio.run(main())


def test_a_client_that_disconnects_before_the_answer_changes_no_conversation(running_app, reply):
    async def main():
        async with running_app(batch_wait=0) as client:
            client.model.go.clear()
            disconnected, answer = asyncio.Event(), reply()
            request = asyncio.create_task(
                client.ask("POST", "/chat", headers=JSON, chunks=[HELLO], disconnected=disconnected, reply=answer)
            )
            await wait_until(lambda: client.model.steps == 1)
            disconnected.set()
            await request
            client.model.go.set()
            await wait_until(lambda: client.model.closed == 1)
            assert not answer.status and len(client.service.answers.conversations) == 0
            metrics = client.service.metrics.registry
            assert metrics.get_sample_value("service_disconnected_clients_total") == 1
            assert metrics.get_sample_value("service_requests_in_progress") == 0
            assert metrics.get_sample_value("service_requests_total", {"path": "/chat", "status": "left"}) == 1

    asyncio.run(main())


def test_a_client_that_disconnects_during_a_stream_stops_it(running_app, reply):
    async def main():
        async with running_app(batch_wait=0) as client:
            disconnected, answer = asyncio.Event(), reply()
            client.model.hold_at = 3
            request = asyncio.create_task(
                client.ask(
                    "POST",
                    "/v1/chat/completions",
                    headers=JSON,
                    chunks=[STREAM],
                    disconnected=disconnected,
                    reply=answer,
                )
            )
            await wait_until(lambda: answer.body.count(b"word") == 2)
            disconnected.set()
            await request
            client.model.hold_at = None
            client.model.go.set()
            await wait_until(lambda: client.model.closed == 1)
            assert b"[DONE]" not in answer.body and not answer.ended
            assert (await client.post("/chat", message="and now?")).status == 200

    asyncio.run(main())


def test_a_client_that_reads_too_slowly_is_disconnected(running_app):
    async def main():
        async with running_app(answer_timeout=1.0) as client:
            sent = []

            async def send(message):
                sent.append(message)
                if len(sent) > 3:
                    await asyncio.Event().wait()  # the client reads no more

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
            await client.app(scope, receive, send)
            assert len(sent) == 4
            assert client.service.metrics.registry.get_sample_value("service_requests_in_progress") == 0

    asyncio.run(main())
