"""What the service reports about itself: health, measurements, its API description, and no details of its failures."""

import asyncio
import functools
import json
import re

from shared.serving import create_app


def test_health_and_metrics_report_the_state(running_app):
    async def main():
        async with running_app(max_concurrent=1) as client:
            assert (await client.get("/health")).json() == {"status": "ready"}
            client.model.go.clear()
            request = asyncio.create_task(client.post("/chat", message="one two"))
            await asyncio.to_thread(client.model.stepped.wait)
            full = (await client.get("/metrics")).body.decode()
            client.model.go.set()
            await request
            await client.get("/made/up/path")
            await client.get("/v1/models/echo")
            await client.get("/v1/models/made/up")
            page = await client.get("/metrics")
            client.service.close()
            closing = await client.get("/health")
            refused = await client.post("/chat", message="x")
        assert "service_requests_in_progress 1.0" in full and page.headers["content-type"].startswith("text/plain")
        lines = page.body.decode().splitlines()
        for line in (
            'service_requests_total{path="/chat",status="200"} 1.0',
            'service_requests_total{path="other",status="404"} 1.0',
            'service_requests_total{path="/v1/models/{name:path}",status="200"} 1.0',
            'service_requests_total{path="/v1/models/{name:path}",status="404"} 1.0',
            "service_requests_in_progress 0.0",
            "service_prompt_tokens_total 2.0",
            "service_answer_tokens_total 3.0",
            "service_conversations 1.0",
            "service_batch_rows_count 1.0",
            "service_first_text_seconds_count 1.0",
        ):
            assert line in lines, line
        assert "made/up" not in page.body.decode()
        assert (closing.status, closing.json()) == (503, {"status": "stopping"})
        assert (refused.status, refused.code) == (503, "stopping") and refused.headers["retry-after"]

    asyncio.run(main())


def test_health_is_starting_while_the_model_loads(echo_model, client_of):
    async def main():
        loading = asyncio.Event()
        loop = asyncio.get_running_loop()

        def load():
            asyncio.run_coroutine_threadsafe(loading.wait(), loop).result(60)
            return echo_model

        app = create_app(load)
        client = client_of(app, echo_model)
        async with app.router.lifespan_context(app):
            health, refused = await client.get("/health"), await client.post("/chat", message="x")
            metrics = await client.get("/metrics")
            loading.set()
            await app.state.service.settled.wait()
            ready = await client.get("/health")
        assert (health.status, health.json()) == (503, {"status": "starting"})
        assert (refused.status, refused.code, metrics.status, ready.status) == (503, "starting", 200, 200)

    asyncio.run(main())


def test_an_internal_error_reveals_nothing(running_app, monkeypatch, caplog):
    async def main():
        async with running_app() as client:

            async def broken(*_, **__):
                raise KeyError("/secret/path")

            monkeypatch.setattr(client.service.answers, "prepare", broken)
            reply = await client.post("/chat", message="x")
            page = (await client.get("/metrics")).body.decode()
        assert (reply.status, reply.code) == (500, "internal_error") and "secret" not in reply.body.decode()
        assert "/secret/path" in caplog.text and 'service_requests_total{path="/chat",status="500"} 1.0' in page

    asyncio.run(main())


def test_the_api_description_has_every_field(running_app):
    async def main():
        async with running_app() as client:
            description = (await client.get("/openapi.json")).json()
            assert (await client.get("/docs")).status == 404  # it would load code from elsewhere
        form = description["paths"]["/question"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["required"]) == {"image", "question"}
        chat = description["paths"]["/chat"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {"message", "image", "conversation_id", "temperature"} <= set(chat["properties"])
        # Every reference has its definition.
        for name in re.findall(r'"#/([^"]+)"', json.dumps(description)):
            assert functools.reduce(dict.__getitem__, name.split("/"), description)

    asyncio.run(main())
