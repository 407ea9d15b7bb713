"""The service under load, with and without batching, and what it does when there is too much of it.

    python -m benchmarks.serving [--seconds 10]        needs wrk (apt install wrk, brew install wrk)

wrk keeps a number of connections busy on the loopback: each sends a photograph of 224 × 224 with a question, waits
for the answer, and asks again. The model is a Llama-style decoder with random weights, which reads 49 patches of the
picture and the question's bytes and writes TOKENS tokens, so that it costs what a trained one of its size would;
it has one thread, in one process with the web server. Beside answers a second stand answers in a second of the
service's own processor time, which a machine that is busy with other things leaves as it is. Written to benchmarks/serving.md.
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
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn

from shared.course.machine import describe_machine
from shared.serving import GenerationRequest, Settings, serve
from shared.transformer import Decoder, DecoderConfig, Sampling, stream

PAGE = Path(__file__).with_suffix(".md")
SIZES = DecoderConfig(vocab_size=512, width=256, depth=6, heads=4, kv_heads=2, mlp_dim=704)
PATCH, SIDE = 32, 224
TOKENS = 24
CONNECTIONS = (1, 2, 4, 8, 16)
ROWS, WAITING = 8, 16
FLOOD = 128


class RandomModel:
    """A model of a real one's shape and cost, which has learned nothing: its words are bytes drawn by its weights."""

    name, context_length = "random", 512

    def __init__(self):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.decoder = Decoder(SIZES).eval()
        self.patches = nn.Linear(3 * PATCH * PATCH, SIZES.width)

    def count_tokens(self, request: GenerationRequest) -> int:
        return sum((SIDE // PATCH) ** 2 * len(each.images) + len(each.text.encode()) for each in request.messages)

    @torch.no_grad()
    def prompt(self, request: GenerationRequest) -> Tensor:
        parts = []
        for message in request.messages:
            for image in message.images:
                pixels = torch.from_numpy(np.array(image.resize((SIDE, SIDE)), dtype=np.float32)) / 255
                cut = pixels.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).reshape(-1, 3 * PATCH * PATCH)
                parts.append(self.patches(cut))
            parts.append(self.decoder.embedding(torch.tensor(list(message.text.encode()))))
        return torch.cat(parts)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[list[str | None]]:
        limits = [request.max_new_tokens for request in requests]
        for step in stream(self.decoder, [self.prompt(request) for request in requests], Sampling(limits)):
            yield [None if token is None else chr(token) for token in step]


# wrk has one thread here; what it counts per thread it hands over by name.
SCRIPT = """
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
  local t = threads[1]
  io.write(string.format('\\nRESULT {"200": %%d, "429": %%d, "503": %%d, "other": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "socket": %%d}\\n',
    t:get("ok"), t:get("refused"), t:get("unready"), t:get("other"), summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


def form() -> bytes:
    """What every request sends: a JPEG of noise made smooth, a question, and how long the answer may be."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    photograph = io.BytesIO()
    Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(photograph, "JPEG", quality=90)
    fields = {"question": b"What can be seen here?", "max_new_tokens": b"%d" % TOKENS}
    parts = [
        b'--line\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s' % (k.encode(), v) for k, v in fields.items()
    ]
    head = b'--line\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return b"\r\n".join([*parts, head + photograph.getvalue(), b"--line--", b""])


@contextlib.contextmanager
def service(rows: int) -> Iterator[tuple[str, psutil.Process]]:
    """The service in a process of its own, answering up to `rows` requests together; its address and the process."""
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(rows)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = process.stderr.readline().split()[0]
            while True:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=60):
                    break
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


def load(side: tuple[str, psutil.Process], connections: int, seconds: float, script: Path) -> dict[str, float]:
    """Keep some connections busy; what wrk counted, seconds until the answer at the median and the 99th percentile,
    and the processor time that the service took."""
    url, process = side
    before = process.cpu_times()
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "--timeout",
        "60s",
        "-s",
        str(script),
        f"{url}/question",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = process.cpu_times()
    took = after.user + after.system - before.user - before.system
    return json.loads(re.search(r"RESULT (.*)", answer)[1]) | {"processor": took}


def rows_of_batches(url: str) -> float:
    """Requests answered together so far, on the average."""
    with urllib.request.urlopen(f"{url}/metrics") as page:
        text = page.read().decode()
    total, count = (float(re.search(rf"^service_batch_rows_{what} (\S+)", text, re.M)[1]) for what in ("sum", "count"))
    return total / count


def measure(seconds: float) -> dict:
    """Every load in turn: {"apart": one by one, "together": in batches, "flood": overload and after}."""
    results = {"apart": {}, "together": {}}
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "load.lua")
        body.write_bytes(form())
        script.write_text(SCRIPT % body)
        with service(1) as apart, service(ROWS) as together:
            sides = {"apart": apart, "together": together}
            for side in sides.values():
                load(side, 1, 2, script)
            # The two take turns, so that a busy moment of the machine hits them alike.
            for connections in CONNECTIONS:
                for name, side in sides.items():
                    results[name][connections] = load(side, connections, seconds, script)
                    print(name, connections, results[name][connections], flush=True)
            results["rows"] = rows_of_batches(together[0])
            flood = {"before": (ROWS, together), "flood": (FLOOD, together), "after": (ROWS, together)}
            results["flood"] = {name: load(side, count, seconds, script) for name, (count, side) in flood.items()}
    return results


def page(results: dict, seconds: float, busy: float) -> str:
    """The results as Markdown, under what they were measured on."""
    weights = sum(each.numel() for each in Decoder(SIZES).parameters())
    lines = [
        "# The service under load",
        "",
        "Written by `python -m benchmarks.serving`; what it does stands at the head of [serving.py](serving.py).",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; " + "; ".join(f"{key} {value}" for key, value in describe_machine().items())
        + f"; load of the machine by others at the start {busy:.1f} processes. A decoder of {weights / 1e6:.1f} million weights; "
        f"{TOKENS} tokens an answer; {seconds:g} s a cell.",
        "",
        "Where others keep the machine busy, answers a second and times of waiting are as much theirs as the service's; answers in "
        "a second of its own processor time are not.",
        "",
        f"## Batches of up to {ROWS}, against one by one",
        "",
        "| connections | answers/s, one by one | in batches | ratio | in a second of processor time, one by one | in batches | ratio "
        "| p50, one by one | in batches | p99, one by one | in batches |",
        "|" + "---|" * 11,
    ]  # fmt: skip
    for connections in CONNECTIONS:
        apart, together = results["apart"][connections], results["together"][connections]
        cells = [str(connections)]
        for unit in ("seconds", "processor"):
            one, many = (side["200"] / side[unit] for side in (apart, together))
            cells += [f"{one:.1f}", f"{many:.1f}", f"{many / one:.2f}" if one else "–"]
        cells += [f"{side[what] * 1000:,.0f} ms" for what in ("p50", "p99") for side in (apart, together)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Over all of this, {results['rows']:.1f} requests were answered together on the average.",
        "",
        f"## Too much: {FLOOD} connections, a queue of {WAITING}",
        "",
        "| connections | answered/s (200) | refused/s (429) | 503 | other statuses | broken connections |",
        "|---|---|---|---|---|---|",
    ]
    for name, counts in results["flood"].items():
        connections = FLOOD if name == "flood" else ROWS
        rates = " | ".join(f"{counts[status] / counts['seconds']:,.1f}" for status in ("200", "429"))
        others = " | ".join(f"{counts[what]:.0f}" for what in ("503", "other", "socket"))
        lines.append(f"| {connections}, {name} | {rates} | {others} |".replace(", flood", ""))
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each cell of the table")
    parser.add_argument("--serve", type=int, metavar="ROWS", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(RandomModel, port=0, settings=Settings(max_batch_size=asked.serve, max_waiting=WAITING))
        return 0
    if not shutil.which("wrk"):
        print("error: wrk is not installed; apt install wrk, or brew install wrk", file=sys.stderr)
        return 1
    busy = os.getloadavg()[0]
    text = page(measure(asked.seconds), asked.seconds, busy)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
