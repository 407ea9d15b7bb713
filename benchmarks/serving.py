"""The service under load, with and without batching, and under overload.

    python -m benchmarks.serving [--seconds 10]        needs wrk (apt install wrk, brew install wrk)

wrk keeps a number of connections busy on the loopback interface: each sends an image of 224 × 224 and a question, waits
for the answer, and repeats. The model is a Llama-style decoder with random weights. It processes 49 patches of the
image and the question's bytes and generates TOKENS tokens, at the cost of a trained model of its size. It has one
thread, in one process with the web server. Answers are counted per second of wall time and per second of the service's
processor time; other programs on the machine hardly change the latter. Results are written to benchmarks/serving.md.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.report import machine_line, markdown_table
from shared.cli import command_line
from shared.errors import CourseError
from shared.serving import GenerationRequest, Settings, serve
from shared.transformer import Decoder, DecoderConfig, Sampling, stream

RESULTS = Path(__file__).with_suffix(".md")
CONFIG = DecoderConfig(vocab_size=512, width=256, depth=6, heads=4, kv_heads=2, mlp_dim=704)
PATCH_SIZE, IMAGE_SIZE = 32, 224
TOKENS = 24
CONNECTIONS = (1, 2, 4, 8, 16)
BATCH_SIZE, QUEUE_LENGTH = 8, 16
OVERLOAD = 128  # connections


class RandomModel:
    """An untrained model with the shape and cost of a real one, whose tokens are bytes."""

    name, context_length = "random", 512

    def __init__(self):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.decoder = Decoder(CONFIG).eval()
        self.patch_dim = 3 * PATCH_SIZE * PATCH_SIZE
        self.patches = nn.Linear(self.patch_dim, CONFIG.width)

    def count_tokens(self, request: GenerationRequest) -> int:
        tokens_per_image = (IMAGE_SIZE // PATCH_SIZE) ** 2
        return sum(tokens_per_image * len(each.images) + len(each.text.encode()) for each in request.messages)

    @torch.no_grad()
    def embed_prompt(self, request: GenerationRequest) -> Tensor:
        parts = []
        for message in request.messages:
            for image in message.images:
                image = image.resize((IMAGE_SIZE, IMAGE_SIZE))
                pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
                patches = pixels.unfold(0, PATCH_SIZE, PATCH_SIZE).unfold(1, PATCH_SIZE, PATCH_SIZE)
                parts.append(self.patches(patches.reshape(-1, self.patch_dim)))
            parts.append(self.decoder.embedding(torch.tensor(list(message.text.encode()))))
        return torch.cat(parts)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        limits = [request.max_new_tokens for request in requests]
        for step in stream(self.decoder, [self.embed_prompt(request) for request in requests], Sampling(limits)):
            yield [None if token is None else chr(token) for token in step]


# wrk uses one thread here; it passes on what it counts per thread by name.
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "multipart/form-data; boundary=line"
local file = io.open("%s", "rb"); wrk.body = file:read("*a"); file:close()
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() ok, refused, unready, other = 0, 0, 0, 0 end
function response(status)
  if status == 200 then ok = ok + 1
  elseif status == 429 then refused = refused + 1
  elseif status == 503 then unready = unready + 1
  else other = other + 1 end
end
function done(summary, latency)
  local t, e = threads[1], summary.errors
  io.write(string.format(
    '\\nRESULT {"200": %%d, "429": %%d, "503": %%d, "other": %%d, "seconds": %%f, ' ..
    '"p50": %%f, "p99": %%f, "socket": %%d}\\n',
    t:get("ok"), t:get("refused"), t:get("unready"), t:get("other"), summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, e.connect + e.read + e.write + e.timeout))
end
"""


def request_body() -> bytes:
    """Return the form that every request sends: a JPEG of smooth noise, a question and the length of the answer."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = io.BytesIO()
    Image.fromarray(noise).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).save(image, "JPEG", quality=90)
    fields = {"question": b"What is in this image?", "max_new_tokens": b"%d" % TOKENS}
    parts = [
        b'--line\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), value)
        for name, value in fields.items()
    ]
    image_header = b'--line\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return b"\r\n".join([*parts, image_header + image.getvalue(), b"--line--", b""])


@dataclass(frozen=True)
class Service:
    """A running service: its address and its process."""

    url: str
    process: psutil.Process


@contextlib.contextmanager
def start_service(batch_size: int) -> Iterator[Service]:
    """Start the service in its own process, which answers up to `batch_size` requests together."""
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(batch_size)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stderr.readline().split()[0]
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=60):
                    break
            yield Service(url, psutil.Process(process.pid))
        finally:
            process.terminate()


def apply_load(service: Service, connections: int, seconds: float, script: Path) -> dict[str, float]:
    """Keep `connections` busy; return wrk's counts, the p50 and p99 latency in seconds, and the processor time used."""
    before = service.process.cpu_times()
    options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s", "-s", str(script)]
    command = ["wrk", *options, f"{service.url}/question"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = service.process.cpu_times()
    processor_seconds = after.user + after.system - before.user - before.system
    return json.loads(re.search(r"RESULT (.*)", output)[1]) | {"processor": processor_seconds}


def mean_batch_size(url: str) -> float:
    """Return the mean number of requests answered together so far."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        text = response.read().decode()
    total, count = (float(re.search(rf"^service_batch_rows_{key} (\S+)", text, re.M)[1]) for key in ("sum", "count"))
    return total / count


def measure(seconds: float) -> dict:
    """Apply every load; return results by "single", "batched" (both by connections), "batch_size" and "overload"."""
    results: dict = {"single": {}, "batched": {}}
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "load.lua")
        body.write_bytes(request_body())
        script.write_text(WRK_SCRIPT % body)
        with start_service(1) as single, start_service(BATCH_SIZE) as batched:
            services = {"single": single, "batched": batched}
            for service in services.values():
                apply_load(service, 1, 2, script)
            # In turn, so that a busy moment of the machine affects both alike.
            for connections in CONNECTIONS:
                for name, service in services.items():
                    results[name][connections] = apply_load(service, connections, seconds, script)
                    print(name, connections, results[name][connections], flush=True)
            results["batch_size"] = mean_batch_size(batched.url)
            phases = {"before": BATCH_SIZE, "": OVERLOAD, "after": BATCH_SIZE}
            results["overload"] = {
                f"{connections}, {phase}".removesuffix(", "): apply_load(batched, connections, seconds, script)
                for phase, connections in phases.items()
            }
    return results


def markdown_page(results: dict, seconds: float, machine_load: float) -> str:
    """Return the results as a Markdown page."""
    weights = sum(parameter.numel() for parameter in Decoder(CONFIG).parameters())
    parts = [
        "# The service under load",
        "Written by `python -m benchmarks.serving`; the docstring of [serving.py](serving.py) describes what it does.",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine_line()}; load of the machine by other programs at the start "
        f"{machine_load:.1f} processes. A decoder of {weights / 1e6:.1f} million weights; {TOKENS} tokens per answer; "
        f"{seconds:g} s per cell.",
        "When other programs keep the machine busy, answers per second and latencies depend on them as well; answers "
        "per second of the service's processor time hardly do.",
        f"## Batches of up to {BATCH_SIZE}, against single requests",
        *batching_tables(results),
        f"Over all of this, {results['batch_size']:.1f} requests were answered together on average.",
        f"## Overload: {OVERLOAD} connections, a queue of {QUEUE_LENGTH}",
        markdown_table(OVERLOAD_COLUMNS, [overload_row(name, each) for name, each in results["overload"].items()]),
    ]
    return "\n\n".join(parts) + "\n"


THROUGHPUT = {"seconds": "Answers per second", "processor": "Answers per second of processor time"}
"""What answers are divided by → the caption of the table."""
THROUGHPUT_COLUMNS = ("connections", "single requests", "batched", "batched / single")
LATENCY_COLUMNS = (
    "connections",
    "median, single",
    "median, batched",
    "99th percentile, single",
    "99th percentile, batched",
)
OVERLOAD_COLUMNS = ("connections", "answered/s (200)", "refused/s (429)", "503", "other statuses", "broken connections")


def batching_tables(results: dict) -> list[str]:
    """Return three captioned tables by connections: both throughputs, then the response times."""
    parts = []
    for unit, caption in THROUGHPUT.items():
        rows = [throughput_row(results, connections, unit) for connections in CONNECTIONS]
        parts += [f"**{caption}**", markdown_table(THROUGHPUT_COLUMNS, rows)]
    rows = [latency_row(results, connections) for connections in CONNECTIONS]
    return [*parts, "**Response times**", markdown_table(LATENCY_COLUMNS, rows)]


def throughput_row(results: dict, connections: int, unit: str) -> list[str]:
    """Return a row under THROUGHPUT_COLUMNS; `unit` is "seconds" or "processor"."""
    sides = [results[name][connections] for name in ("single", "batched")]
    single, batched = (side["200"] / side[unit] for side in sides)
    return [str(connections), f"{single:.1f}", f"{batched:.1f}", f"{batched / single:.2f}" if single else "–"]


def latency_row(results: dict, connections: int) -> list[str]:
    """Return a row under LATENCY_COLUMNS."""
    sides = [results[name][connections] for name in ("single", "batched")]
    return [str(connections), *(f"{side[key] * 1000:,.0f} ms" for key in ("p50", "p99") for side in sides)]


def overload_row(name: str, counts: dict[str, float]) -> list[str]:
    """Return a row under OVERLOAD_COLUMNS."""
    rates = [f"{counts[status] / counts['seconds']:,.1f}" for status in ("200", "429")]
    return [name, *rates, *(f"{counts[key]:.0f}" for key in ("503", "other", "socket"))]


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each cell of the table")
    parser.add_argument("--serve", type=int, metavar="BATCH_SIZE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(RandomModel, port=0, settings=Settings(max_batch_size=options.serve, max_waiting=QUEUE_LENGTH))
        return
    if not shutil.which("wrk"):
        raise CourseError("wrk is not installed; apt install wrk, or brew install wrk")
    machine_load = os.getloadavg()[0]
    page = markdown_page(measure(options.seconds), options.seconds, machine_load)
    RESULTS.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    sys.exit(main())
