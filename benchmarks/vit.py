"""The course's Vision Transformer against the same model in `transformers` and with `torch.nn.TransformerEncoder`.

    python -m benchmarks.vit

Measured are a training step (forward, cross-entropy, backward, AdamW) and inference (a forward pass without gradients):
in float32 on one CPU thread and, if there is a CUDA device, there under bfloat16 autocast. The median of the rounds
counts, on the CPU in processor time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines import HuggingFaceVisionTransformer, TorchVisionTransformer
from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig

WARMUP = 2  # rounds that fill caches and choose kernels


@dataclass(frozen=True)
class Case:
    """One size of model and batch, and the number of rounds to measure."""

    name: str
    config: VisionTransformerConfig
    batch_size: int
    rounds: int


CPU_CASES = (
    Case(
        "digits, 17 tokens × 64",
        VisionTransformerConfig(8, 2, channels=1, width=64, depth=4, heads=4, mlp_dim=128, classes=10),
        batch_size=64,
        rounds=31,
    ),
    Case(
        "CIFAR size, 65 tokens × 192",
        VisionTransformerConfig(32, 4, width=192, depth=6, heads=3, mlp_dim=768, classes=10),
        batch_size=32,
        rounds=11,
    ),
    Case(
        "ViT-Ti/16, 197 tokens × 192",
        VisionTransformerConfig(224, 16, width=192, depth=12, heads=3, mlp_dim=768, classes=1000),
        batch_size=4,
        rounds=7,
    ),
)
CUDA_CASES = (
    Case("CIFAR size, 65 tokens × 192", CPU_CASES[1].config, batch_size=512, rounds=31),
    Case("ViT-B/16, 197 tokens × 768", VisionTransformerConfig(classes=1000), batch_size=128, rounds=15),
)
BASELINES = {"transformers": HuggingFaceVisionTransformer, "nn.TransformerEncoder": TorchVisionTransformer}


def measure() -> list[Row]:
    """Return rows in milliseconds."""
    rows = [row for case in CPU_CASES for row in _measure_case(case, "cpu")]
    if torch.cuda.is_available():
        rows += [row for case in CUDA_CASES for row in _measure_case(case, "cuda")]
    return rows


def _measure_case(case: Case, device: str) -> list[Row]:
    constructors = {"course": VisionTransformer, **BASELINES}
    models = {name: constructor(case.config).to(device) for name, constructor in constructors.items()}
    height, width = case.config.image_sides
    images = torch.randn(case.batch_size, case.config.channels, height, width, device=device)
    labels = torch.randint(case.config.classes, (case.batch_size,), device=device)
    setting = "CPU, float32" if device == "cpu" else "CUDA, bfloat16"
    options = {} if device == "cpu" else {"clock": time.perf_counter, "synchronize": torch.cuda.synchronize}
    rows = []
    for task, make_step in (("training step", _training_step), ("inference", _inference)):
        steps = {name: make_step(model, images, labels) for name, model in models.items()}
        timings = time_in_turns(steps, case.rounds, warmup=WARMUP, **options)
        for baseline in BASELINES:
            name = f"ViT {task}, {case.name} × {case.batch_size} images, {setting}: {baseline}"
            rows.append(Row.of_cost(name, timings["course"].median_ms, timings[baseline].median_ms, "ms"))
    return rows


def _training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> None:
        model.train()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _inference(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.eval()
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            model(images)

    return step


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_rows(measure())
