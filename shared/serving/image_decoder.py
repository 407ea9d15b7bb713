"""Decode the images of clients in processes that can be ended: at a limit of processor time, and when a client leaves.

A thread inside a decoder cannot be stopped, so its work would go on for a client that has left, and would delay others.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path

from PIL import Image

from shared.serving.errors import ServiceError
from shared.serving.metrics import Metrics
from shared.serving.settings import API_KEY_VARIABLE, Settings

LOG = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
MAX_PROCESSES = 2
GRACE = 5.0
LIMITS = ("max_pixels", "max_aspect_ratio", "max_scans", "decode_seconds", "image_side")


class _Died(Exception):
    """The process ended during an image."""


class ImageDecoder:
    """Decode images in at most MAX_PROCESSES processes, which start with the first images. Use it in one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics):
        self.settings, self.metrics = settings, metrics
        self._places = asyncio.Semaphore(MAX_PROCESSES)
        self._idle: list[Process] = []
        self._processes: set[Process] = set()
        self._ending: set[asyncio.Future[int]] = set()

    @property
    def process_ids(self) -> list[int]:
        """The processes that exist now."""
        return [process.pid for process in self._processes if process.returncode is None]

    async def decode(self, data: bytes, *, param: str = "image") -> Image.Image:
        """Decode an image file as images.py does. When the caller is canceled, the process ends at once.

        Raises ServiceError not_an_image, too_many_pixels, image_too_narrow, image_too_complex, broken_image.
        """
        async with self._places:
            process = await self._idle_process()
            try:
                image = await self._exchange(process, data, param)
            except _Died:
                raise self._explain(await self._end(process, grace=GRACE), param) from None
            except asyncio.CancelledError:
                self.metrics.decoders_ended.labels("client left").inc()
                self._end_later(process)
                raise
            except ServiceError:
                self._idle.append(process)
                raise
            self._idle.append(process)
            return image

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*map(self._end, self._processes), *self._ending)

    async def _idle_process(self) -> Process:
        while self._idle:
            if (process := self._idle.pop()).returncode is None:
                return process
            await self._end(process)
        limits = {name: getattr(self.settings, name) for name in LIMITS}
        environment = {name: value for name, value in os.environ.items() if name != API_KEY_VARIABLE}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "shared.serving.decoding_worker",
            json.dumps(limits),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        )
        self._processes.add(process)
        try:
            assert process.stdout
            if not await process.stdout.readline():
                code = await self._end(process, grace=GRACE)
                raise RuntimeError(f"the process that decodes images could not start: exit code {code}")
        except asyncio.CancelledError:
            self._end_later(process)
            raise
        return process

    async def _exchange(self, process: Process, data: bytes, param: str) -> Image.Image:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(b"%d\n" % len(data) + data)
            await process.stdin.drain()
            reply = json.loads(await process.stdout.readuntil(b"\n"))
            if "code" in reply:
                raise ServiceError(reply["code"], reply["message"], param=param)
            width, height = reply["size"]
            if not 0 < min(width, height) <= max(width, height) <= self.settings.image_side:
                raise ValueError(f"an image of {width} × {height}")
            return Image.frombytes("RGB", (width, height), await process.stdout.readexactly(3 * width * height))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, LookupError, TypeError, ValueError):
            # The process has ended, or a file has taken control of it and it answers nonsense.
            raise _Died from None

    async def _end(self, process: Process, *, grace: float = 0.0) -> int:
        # A process that has closed its output is about to end, and its exit code tells why: give it a moment.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await process.wait()
        if process.returncode is None:
            process.kill()
        code = await process.wait()
        self._processes.discard(process)
        return code

    def _end_later(self, process: Process) -> None:
        if process.returncode is None:
            process.kill()
        task = asyncio.ensure_future(self._end(process))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _explain(self, code: int, param: str) -> ServiceError:
        if code == -signal.SIGPROF:
            self.metrics.decoders_ended.labels("processor time").inc()
            return ServiceError(
                "image_too_complex",
                f"decoding the image takes more than {self.settings.decode_seconds:g} s of processor time; "
                "send a smaller image, or save it in another format",
                param=param,
            )
        self.metrics.decoders_ended.labels("crash").inc()
        LOG.error("the process that decodes images ended with exit code %d", code)
        return ServiceError(
            "broken_image", "the image file could not be decoded; save it in another format", param=param
        )
