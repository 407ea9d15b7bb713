"""What each process of benchmarks/distributed.py runs: a short training that measures its speed and memory.

python benchmarks/distributed_job.py ddp|fsdp output.json
"""

import json
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch.nn import functional as F

from shared.distributed import gather_values, is_main, join
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.training.memory import peak_memory
from shared.transformer import Decoder, DecoderConfig

SMALL_MODEL = DecoderConfig(vocab_size=512, width=32, depth=1, heads=2, kv_heads=2, mlp_dim=32)
MODEL = DecoderConfig(vocab_size=512, width=384, depth=6, heads=6, kv_heads=2, mlp_dim=1024)
BATCH_SIZE, TOKENS, STEPS, WARMUP_STEPS = 8, 33, 10, 3


def loss(model: torch.nn.Module, token_ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())


def main(parallel: str, output: Path) -> None:
    torch.set_num_threads(1)
    device = join("cuda" if torch.cuda.is_available() else "cpu")
    batches = Batches(torch.randint(512, (64, TOKENS)), batch_size=BATCH_SIZE, seed=0)
    # A training before the measured one, so that what libraries load at their first use does not count as memory.
    warmup_config = TrainingConfig(2, 1e-3, parallel=parallel)
    train(Decoder(SMALL_MODEL), batches, loss, warmup_config, run=RunOptions(device=device, label="warm-up"))

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    memory_before = 0 if device.type == "cuda" else peak_memory(device)
    model = Decoder(MODEL)
    config = TrainingConfig(STEPS, 1e-3, parallel=parallel, log_every=1)
    history = train(model, batches, loss, config, run=RunOptions(device=device, label=parallel)).history
    largest = max(gather_values(peak_memory(device) - memory_before))
    if is_main():
        times = [after["seconds"] - before["seconds"] for before, after in pairwise(history)][WARMUP_STEPS:]
        output.write_text(json.dumps({"seconds": statistics.median(times), "memory": largest}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
