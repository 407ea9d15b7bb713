"""The page at `/` without a browser: its files, their headers, `/model`, the scope, and `/attention`."""

import asyncio
import base64
import fnmatch
import io
import json
import re
import tomllib

import numpy as np
from PIL import Image

from shared.course.lesson import ROOT
from shared.serving import ImageAttention, ModelCard, Sample, UnsupportedRequest, create_app
from shared.serving.web_page import FILES, FOLDER, data_url

SCOPE = "It repeats what it receives."


def about(text, *images):
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_every_file_of_the_page_is_served_and_nothing_else(running_app):
    async def main():
        async with running_app() as client:
            replies = {path: await client.get(path) for path in FILES}
            others = [await client.get(path) for path in ("/static/", "/static/nothing.js", "/static/../app.py")]
        assert replies["/"].headers["content-type"] == "text/html; charset=utf-8"
        assert {path.rpartition("/")[2] or "index.html" for path in replies} == {each.name for each in FOLDER.iterdir()}
        for path, reply in replies.items():
            assert reply.status == 200 and reply.headers["x-content-type-options"] == "nosniff", path
        assert [other.status for other in others] == [404] * 3
        return replies

    replies = asyncio.run(main())
    policy = replies["/"].headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    page = replies["/"].body.decode()
    referenced = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    for script in FOLDER.glob("*.js"):
        referenced |= {
            name.replace("./", "static/") for name in re.findall(r'from "([^"]+)"', script.read_text(encoding="utf-8"))
        }
    assert {f"/{name}" for name in referenced} <= {*FILES, "/openapi.json", "/health"}


def test_the_page_loads_nothing_from_elsewhere():
    for path in FOLDER.iterdir():
        urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text(encoding="utf-8")))
        assert urls <= {"http://www.w3.org"}, path  # the name of SVG, which is not loaded
        # Content-Security-Policy refuses these; the browser would only write to its console.
        assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)", path.read_text(encoding="utf-8")), path


def test_an_installed_package_contains_the_page():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in FOLDER.iterdir():
        name = path.relative_to(ROOT / "shared/serving").as_posix()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in data["shared.serving"]), name


def test_the_page_is_answered_in_every_state(echo_model, client_of):
    async def main():
        loading, loop = asyncio.Event(), asyncio.get_running_loop()

        def load():
            asyncio.run_coroutine_threadsafe(loading.wait(), loop).result(60)
            return echo_model

        app = create_app(load)
        client = client_of(app, echo_model)
        async with app.router.lifespan_context(app):
            page, model = await client.get("/"), await client.get("/model")
            assert (page.status, model.status, model.code) == (200, 503, "starting")
            loading.set()
            await app.state.service.settled.wait()
            assert (await client.get("/model")).json()["name"] == "echo"

    asyncio.run(main())


def test_the_model_states_its_scope_and_its_samples(running_app, echo_model):
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    echo_model.card = ModelCard(SCOPE, follow_ups=False, samples=(Sample(image, "a square", ("why?",)),))

    async def main():
        async with running_app(echo_model, max_pixels=77) as client:
            health = (await client.get("/health")).json()
            description = (await client.get("/openapi.json")).json()
            model = (await client.get("/model")).json()
        assert health == {"status": "ready", "scope": SCOPE} and description["info"]["description"] == SCOPE
        (sample,) = model.pop("samples")
        limits = model.pop("limits")
        assert limits["pixels"] == 77 and limits["body_bytes"] > 0
        assert model == {
            "name": "echo",
            "scope": SCOPE,
            "accepts_images": True,
            "accepts_questions": True,
            "follow_ups": False,
            "attention": False,
            "caption_prompt": "Describe the image.",
            "questions": [],
        }
        assert (sample["description"], sample["questions"]) == ("a square", ["why?"])
        decoded = Image.open(io.BytesIO(base64.b64decode(sample["image"].partition(",")[2])))
        assert decoded.tobytes() == image.tobytes()

    asyncio.run(main())


def test_a_model_without_a_card_states_no_scope(running_app):
    async def main():
        async with running_app() as client:
            assert (await client.get("/health")).json() == {"status": "ready"}
            assert (await client.get("/model")).json()["scope"] == ""

    asyncio.run(main())


def test_attention_is_the_models_own(running_app, echo_model):
    received = []

    def image_attention(request, answer):
        received.append((request.messages, answer))
        if answer == "secret":
            raise RuntimeError("/secret/weights")
        if not request.messages[-1].images:
            raise UnsupportedRequest("there is no image")
        return ImageAttention(("a", "b"), ((0.0, 0.25, 1.0, 0.75),), (np.arange(4).reshape(2, 1, 2) / 3,))

    echo_model.image_attention = image_attention
    image = Image.new("RGB", (8, 6), (255, 0, 0))

    async def main():
        async with running_app(echo_model) as client:
            assert (await client.get("/model")).json()["attention"]
            reply = await client.post("/attention", messages=about("what?", image), answer="a b")
            failed = await client.post("/attention", messages=about("what?", image), answer="secret")
            without = await client.post("/attention", messages=about("what?"), answer="a b")
            too_long = await client.post("/attention", messages=about("word " * 500, image), answer="a b")
            empty = await client.post("/attention", messages=about("what?", image), answer="")
            form = await client.post("/attention", form={"answer": "a"})
        assert reply.json() == {
            "tokens": ["a", "b"],
            "images": [
                {"region": [0.0, 0.25, 1.0, 0.75], "weights": [[[0.0, 0.333333]], [[0.666667, 1.0]]]},
            ],
        }
        (message,), answer = received[0]
        assert (message.text, answer, message.images[0].size) == ("what?", "a b", (8, 6))
        assert (failed.status, failed.code) == (503, "model_failed") and "secret" not in failed.body.decode()
        assert (without.status, without.code) == (422, "refused") and "no image" in without.body.decode()
        assert (too_long.code, empty.code, form.code) == (
            "context_length_exceeded",
            "invalid_request",
            "wrong_content_type",
        )

    asyncio.run(main())


def test_a_model_without_attention_refuses(running_app):
    async def main():
        async with running_app() as client:
            reply = await client.post("/attention", messages=about("what?"), answer="a")
        assert (reply.status, reply.code) == (422, "refused")
        assert json.loads(reply.body)["error"]["message"] == "echo does not report where it attends"

    asyncio.run(main())


def test_the_page_needs_no_key_and_the_model_does(running_app):
    async def main():
        async with running_app(api_key="right") as client:
            assert [(await client.get(path)).status for path in (*FILES, "/health")] == [200] * (len(FILES) + 1)
            assert [(await client.get(path)).code for path in ("/model", "/v1/models")] == ["invalid_api_key"] * 2

    asyncio.run(main())
