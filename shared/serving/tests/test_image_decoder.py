"""Images are decoded in processes that end at a limit of processor time and when their client leaves."""

import asyncio
import base64
import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

import shared.serving
from shared.serving.errors import ServiceError
from shared.serving.image_decoder import MAX_PROCESSES, ImageDecoder
from shared.serving.images import decode_image
from shared.serving.metrics import Metrics
from shared.serving.settings import API_KEY_VARIABLE, Settings
from shared.serving.threads import MAX_THREADS, Threads

FOR_EVER = {"max_scans": 10**9, "decode_seconds": 10**6}


def png(size=(40, 30)) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def costly(jpeg_with_scans) -> bytes:
    """A file of a megabyte that takes hours to decode."""
    return jpeg_with_scans(4000, 50_000)


@contextlib.asynccontextmanager
async def running_decoder(**settings):
    decoder = ImageDecoder(Settings(**settings), Metrics())
    try:
        yield decoder
    finally:
        await decoder.close()
        assert decoder.process_ids == []


async def refusal(decoder: ImageDecoder, data: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await decoder.decode(data, param="field")
    return caught.value


def ended(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("service_decoders_ended_total", {"reason": reason})


async def wait_until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_images_and_errors_are_those_of_decode_image():
    async def main():
        async with running_decoder(image_side=20, max_pixels=10_000) as decoder:
            expected = decode_image(png(), decoder.settings)
            images = await asyncio.gather(*(decoder.decode(png()) for _ in range(9)))
            assert {image.size for image in images} == {(20, 15)}
            assert {image.tobytes() for image in images} == {expected.tobytes()}
            assert len(decoder.process_ids) == MAX_PROCESSES
            processes = set(decoder.process_ids)
            for data, code in (
                (b"hello", "not_an_image"),
                (b"", "not_an_image"),
                (png()[:-40], "broken_image"),
                (png((101, 100)), "too_many_pixels"),
                (png((500, 1)), "image_too_narrow"),
            ):
                error = await refusal(decoder, data)
                assert (error.code, error.param) == (code, "field")
            assert set(decoder.process_ids) == processes, "a refused file ends no process"

    asyncio.run(main())


def test_an_image_beyond_the_processor_time_ends_its_process_only(costly):
    async def main():
        async with running_decoder(max_scans=10**9, decode_seconds=0.2) as decoder:
            error = await refusal(decoder, costly)
            assert (error.status, error.code, error.param) == (422, "image_too_complex", "field")
            assert "0.2 s of processor time" in error.message
            assert decoder.process_ids == [] and ended(decoder.metrics, "processor time") == 1
            # The next images have the complete time again, however many they are.
            for _ in range(30):
                assert (await decoder.decode(png())).size == (40, 30)
            assert len(decoder.process_ids) == 1

    asyncio.run(main())


def test_a_process_ends_with_its_client(costly):
    async def main():
        async with running_decoder(**FOR_EVER) as decoder:
            await asyncio.gather(*(decoder.decode(png()) for _ in range(MAX_PROCESSES)))
            processes = decoder.process_ids
            decoding = [asyncio.create_task(decoder.decode(costly)) for _ in processes]
            await wait_until(lambda: not decoder._idle)
            waiting = asyncio.create_task(decoder.decode(png()))
            for task in decoding:
                task.cancel()
            assert (await waiting).size == (40, 30), "both places are free"
            await asyncio.gather(*decoding, return_exceptions=True)
            await wait_until(lambda: not any(map(exists, processes)))
            assert ended(decoder.metrics, "client left") == MAX_PROCESSES
            # One that leaves while its process starts leaves none behind.
            await asyncio.gather(*map(decoder._end, list(decoder._processes)))
            starting = asyncio.create_task(decoder.decode(png()))
            await wait_until(lambda: decoder.process_ids)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await wait_until(lambda: not decoder.process_ids)
            assert (await decoder.decode(png())).size == (40, 30)

    asyncio.run(main())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_an_error_of_that_image_only(end, costly, caplog):
    async def main():
        async with running_decoder(**FOR_EVER) as decoder:
            await decoder.decode(png())
            (process,) = decoder.process_ids
            decoding = asyncio.create_task(decoder.decode(costly))
            await wait_until(lambda: not decoder._idle)
            os.kill(process, end)
            with pytest.raises(ServiceError) as caught:
                await decoding
            assert caught.value.code == "broken_image" and ended(decoder.metrics, "crash") == 1
            await decoder.decode(png())
            (other,) = decoder.process_ids
            assert other != process
            # One that ends between two images is replaced without an error.
            idle = decoder._idle[0]
            os.kill(other, end)
            await idle.wait()
            assert (await decoder.decode(png())).size == (40, 30)

    asyncio.run(main())


def test_a_signal_to_all_processes_leaves_the_decoder_to_the_service():
    async def main():
        async with running_decoder() as decoder:
            await decoder.decode(png())
            (process,) = decoder.process_ids
            for each in (signal.SIGINT, signal.SIGTERM):
                os.kill(process, each)
            await decoder.decode(png())
            assert decoder.process_ids == [process]

    asyncio.run(main())


def test_a_decoder_that_cannot_start_is_a_fault_of_the_service(monkeypatch):
    async def main():
        monkeypatch.setattr("shared.serving.image_decoder.sys.executable", "/bin/false")
        async with running_decoder() as decoder:
            with pytest.raises(RuntimeError, match="exit code 1"):
                await decoder.decode(png())

    asyncio.run(main())


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="reads /proc")
def test_a_decoder_has_little_memory_and_no_secrets(monkeypatch):
    async def main():
        monkeypatch.setenv(API_KEY_VARIABLE, "key-of-the-service")
        async with running_decoder(max_pixels=1_000_000) as decoder:
            await decoder.decode(png())
            (process,) = decoder.process_ids
            with open(f"/proc/{process}/environ") as file:
                assert "key-of-the-service" not in file.read()
            with open(f"/proc/{process}/limits") as file:
                limits = {line[:26].strip(): line[26:].split()[0] for line in file}
            assert int(limits["Max address space"]) < 600_000_000 and limits["Max file size"] == "0"
            # A TIFF of 16 × 16 pixels whose only tile has 20,000 × 20,000.
            assert (await refusal(decoder, tiff_with_a_large_tile(20_000))).code in (
                "broken_image",
                "image_too_complex",
            )
            assert (await decoder.decode(png())).size == (40, 30)

    asyncio.run(main())


def tiff_with_a_large_tile(side: int) -> bytes:
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 8), (325, 9)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, each) for tag, each in tags)
    return struct.pack("<2sHI", b"II", 42, 20) + bytes(12) + directory + bytes(4)


def test_a_decoder_starts_without_the_web_service():
    names = "import sys, shared.serving.decoding_worker; print({'fastapi', 'starlette', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", names], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert all(getattr(shared.serving, name) for name in shared.serving.__all__)


def test_a_hung_up_client_frees_its_place_and_burns_no_processor_time(running_app, costly):
    async def main():
        async with running_app(**FOR_EVER, max_concurrent=MAX_PROCESSES) as client:
            form = httpx.Request("POST", "http://x", files={"image": costly})
            text = base64.b64encode(costly).decode()
            part = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{text}"}}
            turns = [{"role": "user", "content": [part]}]
            bodies = (
                ("/caption", form),
                ("/chat", httpx.Request("POST", "http://x", json={"message": "x", "image": text})),
                (
                    "/v1/chat/completions",
                    httpx.Request("POST", "http://x", json={"model": "echo", "messages": turns, "stream": True}),
                ),
            )
            images = client.service.answers.images
            await client.post("/caption", files={"image": png()})
            for path, body in bodies:
                (process,) = images.process_ids
                gone = asyncio.Event()
                asking = asyncio.create_task(
                    client.ask("POST", path, headers=body.headers.raw, chunks=[body.read()], disconnected=gone)
                )
                await wait_until(lambda: not images._idle)
                gone.set()
                await asking
                await wait_until(lambda: not exists(process))  # noqa: B023
                assert (await client.post("/caption", files={"image": png()})).status == 200
            count = client.service.metrics.registry.get_sample_value
            assert count("service_requests_in_progress") == 0
            assert ended(client.service.metrics, "client left") == len(bodies)

    asyncio.run(main())


def test_waiting_for_a_decoder_counts_as_time_of_the_answer(running_app, costly):
    async def main():
        async with running_app(**FOR_EVER, answer_timeout=1.5) as client:
            replies = await asyncio.gather(
                *(client.post("/caption", files={"image": costly}) for _ in range(MAX_PROCESSES + 2))
            )
            assert {(reply.status, reply.code) for reply in replies} == {(504, "too_slow")}
            await wait_until(lambda: not client.service.answers.images.process_ids)

    asyncio.run(main())


# ── Threads ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_thread_keeps_its_place_until_its_call_ends():
    async def main():
        metrics, go, calls = Metrics(), threading.Event(), []

        def call(name):
            calls.append(name)
            assert go.wait(60)

        threads = Threads(metrics)
        running = [asyncio.create_task(threads.run(lambda: call("first"))) for _ in range(MAX_THREADS)]
        await wait_until(lambda: len(calls) == MAX_THREADS)
        dropped = asyncio.create_task(threads.run(lambda: call("dropped")))
        last = asyncio.create_task(threads.run(lambda: call("last")))
        await asyncio.sleep(0)
        for task in (*running, dropped):
            task.cancel()
        await asyncio.gather(*running, dropped, return_exceptions=True)
        abandoned = lambda: metrics.registry.get_sample_value("service_abandoned_calls")  # noqa: E731
        assert abandoned() == MAX_THREADS and calls == ["first"] * MAX_THREADS
        assert threads.all_busy_for(0) and not threads.all_busy_for(3600)
        go.set()
        await last
        await wait_until(lambda: abandoned() == 0)
        assert calls == ["first"] * MAX_THREADS + ["last"] and not threads.all_busy_for(0)
        threads.close()

    asyncio.run(main())


def test_health_reports_threads_that_do_not_return(running_app, monkeypatch):
    async def main():
        async with running_app(answer_timeout=0.2) as client:
            go = threading.Event()
            monkeypatch.setattr(client.model, "count_tokens", lambda request: go.wait(60) and 1)
            replies = await asyncio.gather(*(client.post("/chat", message="x") for _ in range(MAX_THREADS + 1)))
            assert {reply.code for reply in replies} == {"too_slow"}
            await wait_until(lambda: client.service.answers.stalled)
            health = await client.get("/health")
            assert (health.status, health.json()["status"]) == (503, "stalled")
            page = (await client.get("/metrics")).body.decode()
            assert f"service_abandoned_calls {MAX_THREADS}.0" in page
            go.set()
            await wait_until(lambda: not client.service.answers.stalled)
            assert (await client.get("/health")).status == 200

    asyncio.run(main())
