"""A tiny decoder that learns to count, in as many processes as `torchrun` starts: the shortest whole program of its kind.

python -m shared.training.example                                                     # one process
torchrun --standalone --nproc-per-node 2 -m shared.training.example --parallel fsdp    # two, each with half the model

Stop it (Ctrl-C, or kill a process), and the same command with RESUME=1 in front goes on, with any number of processes.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.cli import command_line
from shared.distributed import is_main, join
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

VOCAB, LENGTH = 31, 24


def sequences(number: int) -> Tensor:
    """Rows that count in steps of 1 to 9 from anywhere, modulo the vocabulary."""
    source = torch.Generator().manual_seed(0)
    starts = torch.randint(VOCAB, (number, 1), generator=source)
    strides = torch.randint(1, 10, (number, 1), generator=source)
    return (starts + strides * torch.arange(LENGTH)) % VOCAB


def loss(model: nn.Module, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits, following = model(tokens[:, :-1]), tokens[:, 1:]
    right = (logits.argmax(-1) == following)[:, 1:].float().mean()  # the first step is anyone's guess
    return F.cross_entropy(logits.flatten(0, 1), following.flatten()), {"accuracy": right}


@command_line()
def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp", help="copy the model, or share it out")
    options.add_argument("--device", default="cpu", help="cpu, or cuda for one GPU per process")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--folder", type=Path, default=Path("runs/example"))
    asked = options.parse_args()

    torch.set_num_threads(1)
    device = join(asked.device)
    config = TrainingConfig(
        asked.steps, 3e-3, parallel=asked.parallel, warmup_steps=20, ema_decay=0.99, log_every=20, checkpoint_every=50
    )
    batches = Batches(sequences(2048), batch_size=32, seed=0)
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(VOCAB, width=64, layers=4, heads=4, kv_heads=2, hidden=128))
    result = train(
        model,
        batches,
        loss,
        config,
        run=RunOptions(
            folder=asked.folder,
            resume=os.environ.get("RESUME") == "1",
            device=device,
            label="counting",
            tokens_per_step=32 * LENGTH,
        ),
    )
    if is_main():
        last = result.history[-1]
        print(f"after {result.steps} steps: loss {last['loss']:.4f}, accuracy {last['accuracy']:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
