"""Throughput of the decoupled deployment: vision in one process and language in another, against one process.

The weights are random, because times do not depend on them. The sizes are such that encoding the tiles and generating
the answer of a request take about equally long.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from lessons.lesson_10_internvl.model import InternVL, InternVLConfig, VisionConfig
from lessons.lesson_10_internvl.model.deployment import (
    Request,
    VisionProcess,
    answer_in_one_process,
    answer_in_two_processes,
    vision_process,
)
from shared.course.context import RunContext
from shared.transformer import DecoderConfig, Sampling

VOCAB = 512
IMAGE = VOCAB - 1
QUESTION = 12
"""Text tokens per request, besides the image token."""


@dataclass(frozen=True)
class Load:
    """What is deployed and requested.

    requests    number of requests; each has one image
    tiles       tiles per image
    new_tokens  tokens per answer
    width       of the vision encoder and of the language model
    depth       blocks of each
    side        patches along one side of a tile
    """

    requests: int
    tiles: int = 4
    new_tokens: int = 12
    width: int = 192
    depth: int = 4
    side: int = 16

    def model(self) -> InternVL:
        """Return a model with random weights."""
        width, depth, heads = self.width, self.depth, self.width // 32
        vision = VisionConfig(8 * self.side, 8, width=width, depth=depth, heads=heads, mlp_dim=4 * width)
        language = DecoderConfig(VOCAB, width, depth, heads, heads, 3 * width)
        return InternVL(InternVLConfig(vision, language, image_token_id=IMAGE)).eval()


def random_requests(load: Load, seed: int) -> list[Request]:
    """Return requests with random texts and tiles."""
    generator = torch.Generator().manual_seed(seed)
    requests = []
    for _ in range(load.requests):
        text = torch.randint(IMAGE, (QUESTION,), generator=generator)
        pixels = torch.randn(load.tiles, 3, 8 * load.side, 8 * load.side, generator=generator)
        requests.append(Request(torch.cat([torch.tensor([IMAGE]), text]), pixels, torch.tensor([load.tiles])))
    return requests


def measure_throughput(context: RunContext, *, rounds: int, **load_values) -> dict[str, float]:
    """Measure requests per second in one process with one thread or two, and in two processes with one thread each.

    rounds       each deployment answers all requests so many times, in turns; the medians count
    load_values  fields of `Load`

    `speed_up` is against one process with as many threads in total, `speed_up_one_thread` against one thread. It is
    measured on the CPU, whatever the context's device; of the context only seed and folder are used.
    """
    torch.manual_seed(context.seed)
    threads = torch.get_num_threads()
    load = Load(**load_values)
    model, sampling = load.model(), Sampling(load.new_tokens)
    folder = context.folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    batch = random_requests(load, context.seed)
    try:
        with vision_process(folder) as vision:
            tasks: dict[str, tuple[int, Callable[[], list[Tensor]]]] = {
                "one_thread": (1, partial(answer_in_one_process, model, batch, sampling)),
                "two_threads": (2, partial(answer_in_one_process, model, batch, sampling)),
                "two_processes": (1, partial(answer_in_two_processes, model, vision, batch, sampling)),
            }
            seconds, answers = measure_in_turns(tasks, rounds)
            vision_seconds = measure_vision(vision, batch)
    finally:
        torch.set_num_threads(threads)
    expected = [answer.tolist() for answer in answers["one_thread"]]
    different = sum(one.tolist() != other for one, other in zip(answers["two_processes"], expected, strict=True))
    return {
        **{f"{name}_per_second": load.requests / value for name, value in seconds.items()},
        "speed_up": seconds["two_threads"] / seconds["two_processes"],
        "speed_up_one_thread": seconds["one_thread"] / seconds["two_processes"],
        "vision_fraction": vision_seconds / seconds["one_thread"],
        "different_answers": float(different),
    }


def measure_in_turns(
    tasks: dict[str, tuple[int, Callable[[], list[Tensor]]]], rounds: int
) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """Return the median seconds of each task over the rounds, and its last result; the first round warms up.

    tasks  name → number of threads and function
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    results: dict[str, list[Tensor]] = {}
    for number in range(rounds + 1):
        for name, (threads, task) in tasks.items():
            torch.set_num_threads(threads)
            start = time.perf_counter()
            results[name] = task()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}, results


def measure_vision(vision: VisionProcess, requests: list[Request]) -> float:
    """Return the seconds that the vision process takes to encode the tiles of all requests."""
    start = time.perf_counter()
    for _ in vision.encode([request.tiles for request in requests]):
        pass
    return time.perf_counter() - start
