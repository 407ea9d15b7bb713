"""What each process of test_parallel.py does: train every case and keep log and weights. Pytest runs the same alone."""

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shared.distributed import gather_values, is_main, join, rank, world_size
from shared.errors import CourseError
from shared.training import Batches, ProcessLost, Stage, TrainingConfig, TrainingInterrupted, TrainingResult, train
from shared.transformer import Attention, Block, Decoder, DecoderConfig, FeedForward

WIDTH, STEPS = 16, 50


class SmallVisionTransformer(nn.Module):
    """A Vision Transformer of the shared parts: 2 × 2 patches of 8 × 8 pixels, a class token, learned positions."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, WIDTH))
        norm = partial(nn.LayerNorm, WIDTH)
        self.blocks = nn.ModuleList(
            Block(Attention(WIDTH, 2), FeedForward(WIDTH, 24), norm, layer_scale=0.5) for _ in range(2)
        )
        self.norm = norm()
        self.head = nn.Linear(WIDTH, 3)  # three rows don't divide among two processes, or four

    def features(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def classify(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    # Two parts one after the other, as many losses do, and not the model's own `forward`.
    logits = model.head(model.features(batch["images"])[:, 0])
    right = (logits.argmax(-1) == batch["labels"]).float().mean()
    return F.cross_entropy(logits, batch["labels"]), {"accuracy": right}


def without_positions(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A loss that leaves parts of the model alone: these must not move, nor keep anyone waiting."""
    tokens = model.blocks[1](model.patches(batch["images"]).flatten(2).mT)
    return F.cross_entropy(model.head(tokens.mean(1)), batch["labels"])


def predict(model: nn.Module, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def noisy(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return batch[0] + 0.1 * torch.randn(batch[0].shape, generator=generator), batch[1]


SOURCE = torch.Generator().manual_seed(3)
PICTURES = torch.randn(64, 1, 8, 8, generator=SOURCE)
IMAGES = Batches(PICTURES, PICTURES.mean((1, 2, 3)).sign().long() + 1, batch_size=8, seed=1, augment=noisy)
# Counting in steps of 1 to 4, modulo the vocabulary: there is something to learn.
STARTS, STRIDES = torch.randint(13, (64, 1), generator=SOURCE), torch.randint(1, 5, (64, 1), generator=SOURCE)
TOKENS = Batches((STARTS + STRIDES * torch.arange(10)) % 13, batch_size=8, seed=1)


def images(number: int) -> dict[str, Tensor]:
    return dict(zip(("images", "labels"), IMAGES(number), strict=True))


def decoder() -> Decoder:
    return Decoder(DecoderConfig(13, WIDTH, 2, 2, 1, 24, tied=True))


@dataclass
class Case:
    make: Callable[[], nn.Module]
    batch_at: Callable[[int], object]
    loss: Callable
    settings: dict = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()


# Clipping is at work in most steps, and each step is made of two batches.
FULL = {"accumulate": 2, "clip_norm": 0.5, "ema_decay": 0.9}
SHORT = {"steps": 12, "clip_norm": 0.5}
BY_PART = (Stage(5, ("blocks.*", "head.*")), Stage(7, ("patches.*", "head.*", "blocks.1.*")))
CASES = {
    "vit": Case(SmallVisionTransformer, images, classify, FULL),
    "decoder": Case(decoder, TOKENS, predict, FULL),
    "stages": Case(SmallVisionTransformer, images, classify, SHORT | {"optimizer": "sgd"}, BY_PART),
    "muon": Case(SmallVisionTransformer, images, classify, SHORT | {"recompute": True, "optimizer": "muon"}),
    "bfloat16": Case(decoder, TOKENS, predict, SHORT | {"precision": "bfloat16", "ema_decay": 0.9}),
    "part unused": Case(SmallVisionTransformer, images, without_positions, SHORT),
}


def held_out(case: Case, model: nn.Module) -> dict[str, float]:
    value = case.loss(model, case.batch_at(0))
    return {"loss": float(value[0] if isinstance(value, tuple) else value)}


def run(name: str, parallel: str, folder: Path | None = None, resume: bool = False, **changes) -> TrainingResult:
    case = CASES[name]
    torch.manual_seed(rank())  # each process draws other weights: the main one's must count
    model = case.make()
    settings = {"steps": STEPS, "learning_rate": 1e-2, "log_every": 1, "parallel": parallel} | case.settings | changes
    return train(
        model,
        case.batch_at,
        case.loss,
        TrainingConfig(**settings),
        folder=folder,
        resume=resume,
        stages=case.stages,
        evaluate=partial(held_out, case),
        evaluate_every=6,
    )


def named_weights(result: TrainingResult) -> dict[str, Tensor]:
    parts = {"model": result.model} | ({} if result.ema is None else {"average": result.ema})
    return {
        f"{part}.{name}": parameter.detach().contiguous().clone()
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def train_cases(folder: Path, names: list[str]) -> None:
    """Train each case in both ways, and keep what came of it."""
    for name in names:
        for parallel in ("ddp", "fsdp"):
            result = run(name, parallel)
            weights = named_weights(result)
            sums = gather_values({key: value.double().sum().item() for key, value in weights.items()})
            assert all(other == sums[0] for other in sums), "the processes hold different weights"
            if is_main():
                save_file(weights, folder / f"{name} {parallel}.safetensors")
                (folder / f"{name} {parallel}.json").write_text(json.dumps(result.history))


# A line of the log every 4 steps, cut in the midst of them.
CUT = {"steps": 24, "log_every": 4}
CUT_AFTER = 10


def cut(folder: Path, parallel: str) -> None:
    """Train until the last process, and it alone, gets a signal: all must stop after the same step, and save."""
    calls = 0
    real = CASES["vit"].loss

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        # Two batches a step.
        if model.training and rank() == world_size() - 1 and (calls := calls + 1) == 2 * CUT_AFTER:
            signal.raise_signal(signal.SIGTERM)
        return real(model, batch)

    CASES["vit"].loss = loss
    try:
        run("vit", parallel, folder, **CUT)
    except TrainingInterrupted as interruption:
        assert f"after step {CUT_AFTER} of" in str(interruption), interruption
    else:
        raise AssertionError("nobody heard the signal")
    finally:
        CASES["vit"].loss = real


def resume(folder: Path, parallel: str) -> TrainingResult:
    result = run("vit", parallel, folder, resume=True, **CUT)
    if is_main():
        save_file(named_weights(result), folder / "weights.safetensors")
    return result


def fail(folder: Path, how: str) -> None:
    """Do something to the last process in the midst of a run; what the others, and it, then say goes to stderr."""
    calls = 0
    last, real = rank() == world_size() - 1, CASES["vit"].loss

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal calls
        calls += model.training
        if calls == 2 * CUT_AFTER and last and how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == 2 * CUT_AFTER and last and how == "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(600)
        if calls == 2 * CUT_AFTER and last and how == "disk":
            (folder / "unfinished-checkpoint-00000012").write_text("in the way of what is to be saved next")
        if last and how == "slow":
            time.sleep(0.1)
        value, further = real(model, batch)
        return (value * math.nan if last and calls == 2 * CUT_AFTER and how == "nan" else value), further

    CASES["vit"].loss = loss
    try:
        changes = CUT | {"checkpoint_every": 4} | ({"steps": 12} if how == "slow" else {})
        run("vit", "fsdp" if how == "disk" else "ddp", folder, **changes)
    except CourseError as error:
        print(f"{type(error).__name__} in {rank()}: {error}", file=sys.stderr, flush=True)
        if isinstance(error, ProcessLost):
            sys.exit(1)  # so that torchrun ends those that hang
    finally:
        CASES["vit"].loss = real


def main(folder: Path, command: str, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    join(timeout=timedelta(seconds=12 if "fail/hangs" in arguments else 60))
    if command == "train":
        train_cases(folder, arguments)
    else:
        for argument in arguments:  # such as cut/ddp, from-ddp/fsdp, fail/dies
            act = {"cut": cut, "fail": fail}.get(argument.split("/")[0], resume)
            act(folder / argument, argument.split("/")[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
