"""What the service tells about itself: ready or not, how much it does, what may be asked, and nothing of its mistakes."""

import asyncio
import functools
import json
import re

from shared.serving import create_app


def test_health_and_metrics_tell_how_it_stands(house):
    async def main():
        async with house(concurrent=1) as here:
            assert (await here.get("/health")).json() == {"status": "ready"}
            here.speaker.go.clear()
            asking = asyncio.create_task(here.post("/chat", message="one two"))
            await asyncio.to_thread(here.speaker.stepped.wait)
            full = (await here.get("/metrics")).body.decode()
            here.speaker.go.set()
            await asking
            await here.get("/made/up/path")
            page = await here.get("/metrics")
            here.service.close()
            closing = await here.get("/health")
            refused = await here.post("/chat", message="x")
        assert "service_requests_in_house 1.0" in full and page.headers["content-type"].startswith("text/plain")
        lines = page.body.decode().splitlines()
        for line in (
            'service_requests_total{path="/chat",status="200"} 1.0',
            'service_requests_total{path="other",status="404"} 1.0',
            "service_requests_in_house 0.0",
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


def test_while_the_model_is_loaded_the_service_says_so(parrot, house_of):
    async def main():
        loading = asyncio.Event()
        loop = asyncio.get_running_loop()

        def load():
            asyncio.run_coroutine_threadsafe(loading.wait(), loop).result(60)
            return parrot

        app = create_app(load)
        here = house_of(app, parrot)
        async with app.router.lifespan_context(app):
            health, refused = await here.get("/health"), await here.post("/chat", message="x")
            metrics = await here.get("/metrics")
            loading.set()
            await app.state.service.settled.wait()
            ready = await here.get("/health")
        assert (health.status, health.json()) == (503, {"status": "starting"})
        assert (refused.status, refused.code, metrics.status, ready.status) == (503, "starting", 200, 200)

    asyncio.run(main())


def test_a_mistake_of_ours_tells_nothing(house, monkeypatch, caplog):
    async def main():
        async with house() as here:

            async def broken(*_):
                raise KeyError("/secret/path")

            monkeypatch.setattr(here.service.answering, "prepare", broken)
            reply = await here.post("/chat", message="x")
            page = (await here.get("/metrics")).body.decode()
        assert (reply.status, reply.code) == (500, "internal_error") and "secret" not in reply.body.decode()
        assert "/secret/path" in caplog.text and 'service_requests_total{path="/chat",status="500"} 1.0' in page

    asyncio.run(main())


def test_the_description_names_every_field(house):
    async def main():
        async with house() as here:
            described = (await here.get("/openapi.json")).json()
            assert (await here.get("/docs")).status == 404  # its page would be fetched from elsewhere
        form = described["paths"]["/question"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["required"]) == {"image", "question"}
        chat = described["paths"]["/chat"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {"message", "image", "conversation_id", "temperature"} <= set(chat["properties"])
        # What is named elsewhere is there.
        for name in re.findall(r'"#/([^"]+)"', json.dumps(described)):
            assert functools.reduce(dict.__getitem__, name.split("/"), described)

    asyncio.run(main())
