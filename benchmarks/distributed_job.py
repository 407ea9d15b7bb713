"""What each process of benchmarks/distributed.py does: train a decoder for a few steps and say how fast, and how large.

python benchmarks/distributed_job.py ddp|fsdp out.json
"""

import json
import resource
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch.nn import functional as F

from shared.distributed import gather_values, is_main, join
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

SIZE = DecoderConfig(vocab_size=512, width=384, depth=6, heads=6, kv_heads=2, mlp_dim=1024)
ROWS, TOKENS, STEPS, WARMING_UP = 8, 33, 10, 3


def loss(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(parallel: str, out: Path) -> None:
    torch.set_num_threads(1)
    device = join("cuda" if torch.cuda.is_available() else "cpu")
    # Once before, so that what libraries load at their first use is not counted as the model's memory.
    small = Decoder(DecoderConfig(512, 32, 1, 2, 2, 32))
    batches = Batches(torch.randint(512, (64, TOKENS)), batch_size=ROWS, seed=0)
    train(
        small,
        batches,
        loss,
        TrainingConfig(2, 1e-3, parallel=parallel),
        run=RunOptions(device=device, label="warming up"),
    )

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = peak_bytes()
    model = Decoder(SIZE)
    config = TrainingConfig(STEPS, 1e-3, parallel=parallel, log_every=1)
    history = train(
        model,
        batches,
        loss,
        config,
        run=RunOptions(device=device, label=parallel),
    ).history
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_bytes() - before
    largest = max(gather_values(memory))
    if is_main():
        times = [after["seconds"] - before["seconds"] for before, after in pairwise(history)][WARMING_UP:]
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        out.write_text(json.dumps({"seconds": statistics.median(times), "memory": largest, "weights": weights}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
