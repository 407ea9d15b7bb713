"""The page at `/` in a real Chromium: answers, attention, errors, a phone, the keyboard, light and dark.

These tests need what `make test-site` installs, and Chromium; without them they are skipped with a reason.
"""

import json
import re
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from shared.course.lesson import ROOT
from shared.course.site.browser_tests import require_browser
from shared.serving import ImageAttention, ModelCard, Sample

# A browser takes as long as the machine needs.
pytestmark = pytest.mark.timeout(0)
SCOPE = "It was trained to repeat what it receives."


@pytest.fixture
def play(tmp_path):
    """Return a function that plays a scenario in Chromium and returns the report."""
    interpreter = require_browser()

    def run(scenario: str, url: str) -> dict:
        report = tmp_path / "report.json"
        command = [interpreter, "-m", "shared.serving.tests.page_in_browser", report, scenario, f"{url}/", tmp_path]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(report.read_text(encoding="utf-8"))
        # Chromium now and then reports a stream as aborted whose last byte the page has read.
        errors = [error for error in result["errors"] if not re.fullmatch(r"failed: .*/completions: .*ABORTED", error)]
        assert errors == [] and result["external"] == []
        return result

    return run


@pytest.fixture
def page_model(echo_model):
    """A model that repeats the last message and attends to one patch of 2 × 2 per token."""

    class PageModel:
        name, context_length = "page-model", 400
        card = ModelCard(
            SCOPE,
            follow_ups=False,
            samples=(Sample(Image.new("RGB", (64, 64), "white"), "a white square", ("what is it?",)),),
        )

        def count_tokens(self, request):
            return echo_model.count_tokens(request)

        def generate(self, requests):
            yield from ([f"{word} "] for word in requests[0].messages[-1].text.split())

        def image_attention(self, request, answer):
            tokens = tuple(answer.split())
            weights = np.full((len(tokens), 2, 2), 0.1)
            for number in range(len(tokens)):
                weights[number, number // 2 % 2, number % 2] = 0.4
            (image,) = request.messages[-1].images
            region = (0.25, 0.0, 0.75, 1.0) if image.width > image.height else (0.0, 0.0, 1.0, 1.0)
            return ImageAttention(tokens, (region,), (weights,))

    return PageModel()


def test_an_image_an_answer_and_its_attention(play, serve_in_thread, page_model, tmp_path):
    Image.new("RGB", (80, 40), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (2000, 1000)).save(tmp_path / "many-pixels.png")
    Image.frombytes("RGB", (300, 300), np.random.default_rng(0).bytes(270_000)).save(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (tmp_path / "text.txt").write_text("hello")
    with serve_in_thread(lambda: page_model, max_pixels=1_000_000, max_body_bytes=300_000, max_batch_size=1) as url:
        report = play("image", url)
    assert report["scope"] == SCOPE and "sample scene first" in report["without an image"]
    assert report["answer"] == ["what is it? "] or report["answer"] == ["what is it?"]
    assert report["radios"] == ["whole answer", "what", "is", "it?"]
    # A patch with a quarter of the greatest attention has three quarters of the darkness, 0.75 · 0.75 · 255.
    (strongest, weak), rest = report["first token"][0]
    assert strongest == 0 and [weak, *rest] == pytest.approx([143] * 3, abs=2)
    assert report["second token"][0][1] == 0 and report["second token"][0][0] == pytest.approx(143, abs=2)
    # Three of four patches were the strongest once: the mean is 0.2 for them and 0.1 for the last.
    assert report["mean"][0] == [0, 0] and report["mean"][1] == [0, pytest.approx(96, abs=2)]
    assert "While generating “what”, 70 % of the attention" in report["first token"][1]
    assert "row 1, column 1" in report["first token"][1] and report["legend"] == "40 % per patch"
    assert report["hidden"] == 0
    title, answer, images = report["markup"]
    assert title == "Multimodal from Scratch" and answer.startswith("<img src=x") and images == 0
    # The model receives the central half of the wide image; the rest is dark.
    assert report["cropped"][0] == [pytest.approx(value, abs=2) for value in (191, 0, 143, 191)]
    assert report["log after another image"] == 0
    assert "too large" in report["large.png"] and "MB" in report["large.png"]
    assert "2000 × 1000 pixels" in report["many-pixels.png"] and "1 million" in report["many-pixels.png"]
    assert "“text.txt” is not an image" in report["text.txt"] and "cannot be displayed" in report["broken.png"]
    assert all(report[f"after {name}"] == 1 for name in ("large.png", "many-pixels.png", "text.txt", "broken.png"))
    for view in ("light 1280", "dark 1280", "light 360", "dark 360"):
        assert report[view]["contrast"][0] >= 4.5, f"{view}: {report[view]['contrast']}"
        assert report[view]["small"] == report[view]["unnamed"] == [], view
        assert report[view]["width"] == int(view.split()[1]), f"{view}: the page scrolls sideways"


def test_a_model_without_images(play, serve_in_thread, echo_model):
    echo_model.card = ModelCard(accepts_images=False)
    with serve_in_thread(lambda: echo_model) as url:
        report = play("text", url)
    assert not report["image panel"] and not report["scope"] and report["radios"] == 0
    assert report["answers"][1].strip() == "user: one assistant: user: one user: two"
    assert report["phone"]["width"] == 360 and report["phone"]["contrast"][0] >= 4.5
    assert "Begin a new one" in report["context"] and report["new"] == 0


def test_a_busy_service_a_lost_connection_and_a_failed_answer(play, serve_in_thread, echo_model):
    class TroubledModel:
        name, context_length = "troubled", 10**8
        card = ModelCard(accepts_images=False, follow_ups=False)

        def count_tokens(self, request):
            return 1

        def generate(self, requests):
            (text,) = (request.messages[-1].text for request in requests)
            yield [f"{text} "]
            while text == "endless":
                time.sleep(0.1)
                yield ["more "]
            if text == "choke":
                raise RuntimeError("/secret")

    limits = {"max_concurrent": 1, "max_new_tokens": 10**8, "answer_timeout": 3600.0}
    with serve_in_thread(TroubledModel, **limits) as url:
        report = play("trouble", url)
    assert "busy" in report["busy"] and not report["stopped"]
    assert [answer.strip() for answer in report["after busy"]] == ["hello"]
    assert "connection to the service was lost" in report["offline"]
    assert [answer.strip() for answer in report["online again"]] == ["hello", "again"]
    assert "could not answer" in report["failed"] and "secret" not in report["failed"]
    assert report["failed note"] == ["This answer is not complete."]


def test_a_service_behind_a_key(play, serve_in_thread, echo_model):
    echo_model.card = ModelCard(accepts_images=False)
    with serve_in_thread(lambda: echo_model, api_key="right") as url:
        report = play("key", url)
    assert "needs an API key" in report["error"] and report["wrong"] and not report["right"]
    assert [answer.strip() for answer in report["answers"]] == ["user: hello"] and not report["key"]


def test_the_page_waits_for_a_model_that_loads(play, serve_in_thread, echo_model):
    def load():
        count = "service_requests_total"
        while not running.service.metrics.registry.get_sample_value(count, {"path": "/model", "status": "503"}):
            time.sleep(0.01)
        return echo_model

    running = serve_in_thread(load, wait=False)
    with running as url:
        report = play("starting", url)
    assert report["name"] == "echo" and not report["alert"]
