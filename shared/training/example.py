"""Train a tiny decoder to count, in as many processes as `torchrun` starts: a complete program in one file.

python -m shared.training.example                                                     # one process
torchrun --standalone --nproc-per-node 2 -m shared.training.example --parallel fsdp    # two, each with half the model

Stop it with Ctrl-C or kill a process. The same command with RESUME=1 in front continues, with any number of processes.
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
from shared.options import COUNT
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

VOCAB_SIZE, LENGTH, BATCH_SIZE = 31, 24, 32


def counting_sequences(count: int) -> Tensor:
    """Return [count, LENGTH] token ids: rows that count in steps of 1 to 9 from a random start, modulo VOCAB_SIZE."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(VOCAB_SIZE, (count, 1), generator=generator)
    strides = torch.randint(1, 10, (count, 1), generator=generator)
    return (starts + strides * torch.arange(LENGTH)) % VOCAB_SIZE


def loss(model: nn.Module, token_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the next-token cross-entropy and the accuracy, which leaves out the first, unpredictable step."""
    logits, labels = model(token_ids[:, :-1]), token_ids[:, 1:]
    accuracy = (logits.argmax(-1) == labels)[:, 1:].float().mean()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten()), {"accuracy": accuracy}


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp", help="replicate or shard the model")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for one GPU per process")
    parser.add_argument("--steps", type=COUNT, default=300)
    parser.add_argument("--folder", type=Path, default=Path("runs/example"))
    options = parser.parse_args()

    torch.set_num_threads(1)
    device = join(options.device)
    config = TrainingConfig(
        options.steps,
        learning_rate=3e-3,
        parallel=options.parallel,
        warmup_steps=20,
        ema_decay=0.99,
        log_every=20,
        checkpoint_every=50,
    )
    batches = Batches(counting_sequences(2048), batch_size=BATCH_SIZE, seed=0)
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(VOCAB_SIZE, width=64, depth=4, heads=4, kv_heads=2, mlp_dim=128))
    resume = os.environ.get("RESUME") == "1"
    run = RunOptions(options.folder, resume, device, label="counting", tokens_per_step=BATCH_SIZE * LENGTH)
    result = train(model, batches, loss, config, run=run)
    if is_main():
        last = result.history[-1]
        print(f"after {result.steps} steps: loss {last['loss']:.4f}, accuracy {last['accuracy']:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
