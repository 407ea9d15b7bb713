"""What each process of test_parallel.py and test_sharded_checkpoint.py runs; pytest runs the same in one process."""

import json
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shared.distributed import gather_values, is_main, join, rank, world_size
from shared.training import (
    Batches,
    Evaluation,
    RunOptions,
    Stage,
    TrainingConfig,
    TrainingInterrupted,
    TrainingResult,
    saving,
    train,
)
from shared.training.dtensor import full_tensor
from shared.training.sharded_checkpoint import HEADER
from shared.transformer import MLP, Attention, Block, Decoder, DecoderConfig

WIDTH, STEPS = 16, 50


class SmallVisionTransformer(nn.Module):
    """A Vision Transformer from shared parts: 2 × 2 patches of 8 × 8 pixels, a class token, learned positions."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, WIDTH))
        norm = partial(nn.LayerNorm, WIDTH)
        self.blocks = nn.ModuleList(
            Block(Attention(WIDTH, 2), MLP(WIDTH, 24, dropout=dropout), norm, layer_scale=0.5) for _ in range(2)
        )
        self.norm = norm()
        self.head = nn.Linear(WIDTH, 3)  # three rows divide neither among two processes nor among four

    def features(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def classify(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    # Two parts one after the other, as in many losses, and not the model's own `forward`.
    logits = model.head(model.features(batch["images"])[:, 0])
    accuracy = (logits.argmax(-1) == batch["labels"]).float().mean()
    return F.cross_entropy(logits, batch["labels"]), {"accuracy": accuracy}


def classify_with_noise(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss that also draws from Python's and NumPy's generators, as third-party augmentations do."""
    value, metrics = classify(model, batch)
    return value * (1 + 0.1 * random.random() + 0.1 * np.random.rand()), metrics  # noqa: NPY002


def without_positions(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A loss that does not use all parameters: the others must not change, nor block a process."""
    tokens = model.blocks[1](model.patches(batch["images"]).flatten(2).mT)
    return F.cross_entropy(model.head(tokens.mean(1)), batch["labels"])


def next_token_loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    return F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())


def add_noise(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return batch[0] + 0.1 * torch.randn(batch[0].shape, generator=generator), *batch[1:]


GENERATOR = torch.Generator().manual_seed(3)
PIXELS = torch.randn(64, 1, 8, 8, generator=GENERATOR)
LABELS = PIXELS.mean((1, 2, 3)).sign().long() + 1
IMAGES = Batches(PIXELS, LABELS, torch.arange(64), batch_size=8, seed=1, augment=add_noise)
# Counting in steps of 1 to 4, modulo the vocabulary size: something that can be learned.
STARTS, STRIDES = torch.randint(13, (64, 1), generator=GENERATOR), torch.randint(1, 5, (64, 1), generator=GENERATOR)
TOKENS = Batches((STARTS + STRIDES * torch.arange(10)) % 13, batch_size=8, seed=1)


def images(index: int) -> dict[str, Tensor]:
    return dict(zip(("images", "labels", "rows"), IMAGES(index), strict=True))


def decoder() -> Decoder:
    return Decoder(DecoderConfig(13, WIDTH, 2, 2, 1, 24, tied=True))


@dataclass
class Case:
    make: Callable[[], nn.Module]
    batch_at: Callable[[int], object]
    loss: Callable
    settings: dict = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    evaluate: Callable | None = None


# Clipping applies in most steps, and each step consists of two batches.
CLIPPED = {"clip_norm": 0.5, "ema_decay": 0.9}
FULL = CLIPPED | {"accumulate": 2}
SHORT = {"steps": 12, "clip_norm": 0.5}
BY_PART = (Stage(5, ("blocks.*", "head.*")), Stage(7, ("patches.*", "head.*", "blocks.1.*")))
CASES = {
    "vit": Case(SmallVisionTransformer, images, classify, FULL),
    "decoder": Case(decoder, TOKENS, next_token_loss, CLIPPED),
    "stages": Case(SmallVisionTransformer, images, classify, SHORT | {"optimizer": "sgd"}, BY_PART),
    "muon": Case(
        SmallVisionTransformer, images, classify, SHORT | {"steps": 6, "recompute": True, "optimizer": "muon"}
    ),
    "bfloat16": Case(decoder, TOKENS, next_token_loss, SHORT | {"precision": "bfloat16", "ema_decay": 0.9}),
    "part unused": Case(SmallVisionTransformer, images, without_positions, SHORT),
}
RANDOM_CASE = Case(partial(SmallVisionTransformer, dropout=0.2), images, classify_with_noise, FULL)


def evaluation_loss(case: Case, model: nn.Module) -> dict[str, float]:
    value = case.loss(model, case.batch_at(0))
    return {"loss": float(value[0] if isinstance(value, tuple) else value)}


def run(
    case: Case | str,
    parallel: str,
    folder: Path | None = None,
    resume: bool = False,
    *,
    loss=None,
    evaluate_every: int = 6,
    **changes,
) -> TrainingResult:
    """Train a case; `loss` and `changes` replace its own loss and settings."""
    case = CASES[case] if isinstance(case, str) else case
    torch.manual_seed(rank())  # each process draws other weights; those of the main one must be used
    model = case.make()
    settings = {"steps": STEPS, "learning_rate": 1e-2, "log_every": 1, "parallel": parallel} | case.settings | changes
    return train(
        model,
        case.batch_at,
        loss or case.loss,
        TrainingConfig(**settings),
        run=RunOptions(folder=folder, resume=resume),
        evaluation=Evaluation(case.evaluate or partial(evaluation_loss, case), every=evaluate_every),
        stages=case.stages,
    )


def named_weights(result: TrainingResult) -> dict[str, Tensor]:
    parts = {"model": result.model} | ({} if result.ema is None else {"average": result.ema})
    return {
        f"{part}.{name}": parameter.detach().contiguous().clone()
        for part, module in parts.items()
        for name, parameter in module.named_parameters()
    }


def train_cases(folder: Path, names: Sequence[str]) -> None:
    """Train each case in both ways, and save the results."""
    for name in names:
        for parallel in ("ddp", "fsdp"):
            result = run(name, parallel)
            weights = named_weights(result)
            sums = gather_values({key: value.double().sum().item() for key, value in weights.items()})
            assert all(other == sums[0] for other in sums), "the processes hold different weights"
            if is_main():
                save_file(weights, folder / f"{name} {parallel}.safetensors")
                (folder / f"{name} {parallel}.json").write_text(json.dumps(result.history))


# A line of the log every 4 steps, interrupted between two lines.
CUT = {"steps": 16, "log_every": 4}
CUT_AFTER = 10


class RecordingLoss:
    """A loss that records the rows of each training batch, and calls `act` at the end of a certain step."""

    def __init__(self, loss: Callable, step: int | None = None, act: Callable[[], None] = lambda: None):
        self.loss, self.step, self.act = loss, step, act
        self.rows: list[list[int]] = []

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if model.training:
            self.rows.append(batch["rows"].tolist())
            if self.step and len(self.rows) == 2 * self.step:  # two batches per step
                self.act()
        return self.loss(model, batch)

    def save(self, folder: Path, when: str) -> None:
        (folder / f"rows {when} {rank()} of {world_size()}.json").write_text(json.dumps(self.rows))


def cut(folder: Path, parallel: str, case: Case | str = "vit") -> None:
    """Train until only the last process gets a signal: all must stop after the same step, and save."""
    last = rank() == world_size() - 1
    case_loss = (CASES[case] if isinstance(case, str) else case).loss
    loss = RecordingLoss(case_loss, CUT_AFTER if last else None, partial(signal.raise_signal, signal.SIGTERM))
    try:
        run(case, parallel, folder, loss=loss, **CUT)
    except TrainingInterrupted as interruption:
        assert f"after step {CUT_AFTER} of" in str(interruption), interruption
    else:
        raise AssertionError("no process reacted to the signal")
    loss.save(folder, "before")


def resume(folder: Path, parallel: str) -> TrainingResult:
    loss = RecordingLoss(CASES["vit"].loss)
    result = run("vit", parallel, folder, resume=True, loss=loss, **CUT)
    loss.save(folder, "after")
    draws = gather_values(torch.rand(1).item())
    assert len(set(draws)) == len(draws), "processes must not draw the same dropout"
    if is_main():
        save_file(named_weights(result), folder / "weights.safetensors")
    return result


def exact(folder: Path, parallel: str) -> None:
    """Train with randomness, once uninterrupted and once with an interruption: the weights must be bit-identical."""
    uncut = run(RANDOM_CASE, parallel, folder / "uncut", **CUT)
    cut(folder / "cut", parallel, RANDOM_CASE)
    resumed = run(RANDOM_CASE, parallel, folder / "cut", resume=True, **CUT)
    if is_main():
        for name, result in (("uncut", uncut), ("cut", resumed)):
            save_file(named_weights(result), folder / f"{name}.safetensors")


def traffic(folder: Path, parallel: str) -> None:
    """Count the collectives, by kind, in a run with one batch per step and in one with three."""
    counts = {}
    for accumulate in (1, 3):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            run("vit", parallel, steps=4, log_every=100, accumulate=accumulate)
        trace = folder / f"{rank()} {accumulate}.trace"
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
        counts[accumulate] = Counter(re.findall('"name": "gloo:([a-z_]+)"', trace.read_text()))
    (folder / f"{rank()}.json").write_text(json.dumps(counts))


def background(folder: Path, parallel: str) -> None:
    """Save after step 4 of 8 with a disk that takes until step 6, and after the last step with a slow disk."""
    write_checkpoint, step_6_done, written = saving.write_sharded_checkpoint, threading.Event(), []
    weights = {}

    def write(path: Path, *rest: object) -> None:
        if path.name.endswith("4"):
            assert step_6_done.wait(60), "training does not continue while a checkpoint is being written"
        else:
            time.sleep(0.3)
        written.append(path.name)
        write_checkpoint(path, *rest)

    def record_weights(model: nn.Module) -> dict[str, float]:
        if len(loss.rows) == 2 * 4:
            weights.update({name: full_tensor(tensor.detach()).clone() for name, tensor in model.named_parameters()})
        return {}

    loss = RecordingLoss(classify, 6, step_6_done.set)
    saving.write_sharded_checkpoint = write
    try:
        case = replace(CASES["vit"], evaluate=record_weights)
        result = run(case, parallel, folder, loss=loss, steps=8, checkpoint_every=4, ema_decay=None, evaluate_every=1)
    finally:
        saving.write_sharded_checkpoint = write_checkpoint
    assert written == ["checkpoint-00000004", "checkpoint-00000008"]
    assert (folder / written[-1] / HEADER).exists(), "it ends before its last checkpoint is finished"
    if is_main():
        save_file(weights, folder / "as of step 4.safetensors")
        save_file(named_weights(result), folder / "weights.safetensors")


ACTS = {"background": background, "cut": cut, "exact": exact, "traffic": traffic}


def main(folder: Path, command: str, arguments: Sequence[str]) -> None:
    torch.set_num_threads(1)
    join()
    if command == "train":
        train_cases(folder, arguments)
    else:
        for argument in arguments:  # such as cut/ddp, from-ddp/fsdp
            ACTS.get(argument.split("/")[0], resume)(folder / argument, argument.split("/")[1])
