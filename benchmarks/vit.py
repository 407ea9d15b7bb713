"""Our Vision Transformer against the same configuration in `transformers` and in `torch.nn.TransformerEncoder`.

    python -m benchmarks.vit

A training step (forward, cross-entropy, backward, AdamW) and inference (a forward pass without gradients), in float32 on
one CPU thread and, where there is one, on a CUDA device under bfloat16 autocast. All sides take turns in one process, so
that a busy moment of the machine hits them alike; the median of the rounds counts, on the CPU in processor time, which
other programs hardly change.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig


@dataclass(frozen=True)
class Case:
    """One size of model and batch, and how often the sides take turns at it."""

    name: str
    config: VisionTransformerConfig
    batch: int
    rounds: int


CPU_CASES = (
    Case(
        "digits, 17 tokens × 64",
        VisionTransformerConfig(8, 2, channels=1, width=64, depth=4, heads=4, mlp_dim=128, classes=10),
        batch=64,
        rounds=31,
    ),
    Case(
        "CIFAR size, 65 tokens × 192",
        VisionTransformerConfig(32, 4, width=192, depth=6, heads=3, mlp_dim=768, classes=10),
        batch=32,
        rounds=11,
    ),
    Case(
        "ViT-Ti/16, 197 tokens × 192",
        VisionTransformerConfig(224, 16, width=192, depth=12, heads=3, mlp_dim=768, classes=1000),
        batch=4,
        rounds=7,
    ),
)
CUDA_CASES = (
    Case("CIFAR size, 65 tokens × 192", CPU_CASES[1].config, batch=512, rounds=31),
    Case("ViT-B/16, 197 tokens × 768", VisionTransformerConfig(classes=1000), batch=128, rounds=15),
)


class TorchVisionTransformer(nn.Module):
    """The same model, with PyTorch's own encoder in the middle."""

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.mlp_dim,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=config.norm_eps,
            batch_first=True,
            norm_first=True,
        )
        self.patches = nn.Conv2d(config.channels, config.width, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.grid[0] * config.grid[1], config.width))
        norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.encoder = nn.TransformerEncoder(layer, config.depth, norm, enable_nested_tensor=False)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


class HuggingFaceVisionTransformer(nn.Module):
    """The same model in `transformers`, which picks PyTorch's fused attention as ours does."""

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        self.model = ViTForImageClassification(
            ViTConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_channels=config.channels,
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp_dim,
                layer_norm_eps=config.norm_eps,
                num_labels=config.classes,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


RIVALS = {"transformers": HuggingFaceVisionTransformer, "nn.TransformerEncoder": TorchVisionTransformer}


def measure() -> list[dict]:
    """Rows of name, ours, theirs (milliseconds), ratio (theirs / ours: above 1 we are faster) and unit."""
    rows = [row for case in CPU_CASES for row in _rows(case, "cpu")]
    if torch.cuda.is_available():
        rows += [row for case in CUDA_CASES for row in _rows(case, "cuda")]
    return rows


def _rows(case: Case, device: str) -> list[dict]:
    makers = {"ours": VisionTransformer, **RIVALS}
    models = {name: make(case.config).to(device) for name, make in makers.items()}
    height, width = case.config.image_sides
    images = torch.randn(case.batch, case.config.channels, height, width, device=device)
    labels = torch.randint(case.config.classes, (case.batch,), device=device)
    where = "CPU, float32" if device == "cpu" else "CUDA, bfloat16"
    rows = []
    for work, make_step in (("training step", _training_step), ("inference", _inference)):
        taken = _in_turns(
            {name: make_step(model, images, labels) for name, model in models.items()}, case.rounds, device
        )
        rows += [
            {
                "name": f"ViT {work}, {case.name} × {case.batch} images, {where}: {rival}",
                "ours": taken["ours"],
                "theirs": taken[rival],
                "ratio": taken[rival] / taken["ours"],
                "unit": "ms",
            }
            for rival in RIVALS
        ]
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


def _in_turns(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median milliseconds of each step."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            _wait_for(device)
            start = clock()
            step()
            _wait_for(device)
            if number >= 2:  # the first two fill caches and choose kernels
                taken[name].append((clock() - start) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in measure():
        print(
            f"{row['name']:<100} {row['ours']:9.2f} {row['theirs']:9.2f} {row['unit']}  ×{row['ratio']:.2f}", flush=True
        )
