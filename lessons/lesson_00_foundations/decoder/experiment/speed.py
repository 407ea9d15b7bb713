"""Speed and memory of generation: with and without a KV cache, and with int8 weights, on this machine."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder.experiment.int8 import memory_bytes, quantize_model
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.course.context import RunContext
from shared.transformer import Decoder, DecoderConfig, Sampling, generate

REPEATS = 3


def measure_speed(context: RunContext, *, width: int, depth: int, new_tokens: int) -> dict:
    """Measure tokens per second of one text with the cache, without it, and with int8 weights (nothing is trained)."""
    torch.manual_seed(context.seed)
    config = DecoderConfig(1000, width, depth, width // 32, width // 64, 3 * width)
    model = LanguageModel(config).to(context.device).eval()
    int8_model = quantize_model(model)
    prompt = torch.randint(config.vocab_size, (16,), generator=torch.Generator().manual_seed(context.seed))

    def generation(decoder: Decoder, use_cache: bool = True) -> Callable[[], list[Tensor]]:
        return lambda: generate(decoder, [prompt], Sampling(new_tokens), use_cache=use_cache)

    tasks = [generation(model), generation(model, use_cache=False), generation(int8_model)]
    cached, recomputed, int8 = interleaved_seconds(tasks, synchronize=context.device != "cpu")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_second": new_tokens / cached,
        "tokens_per_second_recomputed": new_tokens / recomputed,
        "tokens_per_second_int8": new_tokens / int8,
        "cache_speedup": recomputed / cached,
        "int8_speedup": cached / int8,
        "bytes": memory_bytes(model),
        "int8_bytes": memory_bytes(int8_model),
        "memory_saving": memory_bytes(model) / memory_bytes(int8_model),
    }


def interleaved_seconds(tasks: Sequence[Callable[[], object]], *, synchronize: bool) -> list[float]:
    """Return the median seconds of each task over several rounds.

    Every round runs all tasks, so that other load on the machine affects all of them alike.
    """
    seconds: list[list[float]] = [[] for _ in tasks]
    for task in tasks:
        task()  # the first run includes set-up costs
    for _ in range(REPEATS):
        for task_seconds, task in zip(seconds, tasks, strict=True):
            start = time.perf_counter()
            task()
            if synchronize:
                torch.cuda.synchronize()
            task_seconds.append(time.perf_counter() - start)
    return list(map(median, seconds))
