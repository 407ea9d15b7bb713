"""What a cache saves, and what 8 bits cost and save: measured side by side on this machine."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder.experiment.quantized import bytes_of, quantized
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.transformer import Decoder, DecoderConfig, Sampling, generate

REPEATS = 3


def measure_speed(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, width: int, depth: int, new_tokens: int
) -> dict:
    """Tokens a second of one text, with the cache and without, and from 8-bit weights (nothing is trained or kept)."""
    torch.manual_seed(seed)
    config = DecoderConfig(1000, width, depth, width // 32, width // 64, 3 * width)
    model = LanguageModel(config).to(device).eval()
    small = quantized(model)
    prompt = torch.randint(config.vocab_size, (16,), generator=torch.Generator().manual_seed(seed))

    def writing(decoder: Decoder, **options: bool) -> Callable[[], list[Tensor]]:
        return lambda: generate(decoder, [prompt], Sampling(new_tokens), **options)

    cached, recomputed, eight_bits = in_turns(
        [writing(model), writing(model, use_cache=False), writing(small)], synchronize=device != "cpu"
    )
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_second": new_tokens / cached,
        "tokens_per_second_recomputed": new_tokens / recomputed,
        "tokens_per_second_int8": new_tokens / eight_bits,
        "cache_speedup": recomputed / cached,
        "int8_speedup": cached / eight_bits,
        "bytes": bytes_of(model),
        "int8_bytes": bytes_of(small),
        "memory_saving": bytes_of(model) / bytes_of(small),
    }


def in_turns(works: Sequence[Callable[[], object]], *, synchronize: bool) -> list[float]:
    """Seconds that each takes, the median of a few rounds in which all take turns, so that a busy moment hits all alike."""
    seconds: list[list[float]] = [[] for _ in works]
    for work in works:
        work()  # the first time costs more
    for _ in range(REPEATS):
        for taken, work in zip(seconds, works, strict=True):
            start = time.perf_counter()
            work()
            if synchronize:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return list(map(median, seconds))


def agreement(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The share of tokens that two texts have in common before they part, over all pairs of texts.

    Behind the first difference they are about different things, so what stands there counts as different.
    """
    same = total = 0
    for one, other in zip(ones, others, strict=True):
        length = min(len(one), len(other))
        alike = one[:length] == other[:length]
        same += int(alike.long().cummin(0).values.sum()) if length else 0
        total += max(len(one), len(other))
    return same / total
