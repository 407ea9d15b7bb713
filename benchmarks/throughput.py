"""Training speed and chip utilization of decoder and Vision Transformer in bfloat16, against `transformers`.

    python -m benchmarks.throughput

The course's training loop trains each model for a few steps, alone on the machine's GPU, with and without
torch.compile; then the same model of `transformers`. The median over several spans of steps counts, without the first
span, in which kernels are compiled and chosen. Without a GPU, tiny models are used: this shows only that the code runs.

Model-FLOPs utilization (arXiv:2204.02311, appendix B): the products that the model needs, forward once and backward
twice, divided by the chip's peak in dense bfloat16 according to its data sheet. Recomputation does not count, nor what
causal attention skips.
"""

import gc
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines import HuggingFaceDecoder, HuggingFaceVisionTransformer
from benchmarks.report import Row, print_rows
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.training import Batches, RunOptions, TrainingConfig, train
from shared.transformer import Decoder, DecoderConfig

# FLOP/s, dense, in bfloat16 with float32 sums, as reported in NVIDIA's data sheets for SXM modules.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}


def next_token_loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    return F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())


def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@dataclass(frozen=True)
class Case:
    """A model with its baseline, its data, and the sizes that determine the cost of attention.

    constructors  of the models, "course" and "transformers"
    arrays        makes the arrays to train on, on a device
    tokens        per row, as attention processes them
    width         of all heads together
    causal        whether attention is causal
    """

    name: str
    constructors: dict[str, Callable[[], nn.Module]]
    arrays: Callable[[torch.device], tuple[Tensor, ...]]
    loss: Callable
    batch_size: int
    tokens: int
    depth: int
    width: int
    causal: bool


def decoder_case(config: DecoderConfig, batch_size: int, tokens: int) -> Case:
    return Case(
        f"decoder {config.width} wide, {config.depth} layers, {batch_size} × {tokens} tokens",
        {"course": lambda: Decoder(config), "transformers": lambda: HuggingFaceDecoder(config)},
        lambda device: (torch.randint(config.vocab_size, (2 * batch_size, tokens + 1), device=device),),
        next_token_loss,
        batch_size,
        tokens,
        config.depth,
        config.width,
        causal=True,
    )


def vit_case(name: str, config: VisionTransformerConfig, batch_size: int) -> Case:
    (height, width), (rows, columns) = config.image_sides, config.grid
    return Case(
        f"{name}, {batch_size} images of {1 + rows * columns} tokens",
        {"course": lambda: VisionTransformer(config), "transformers": lambda: HuggingFaceVisionTransformer(config)},
        lambda device: (
            torch.randn(2 * batch_size, config.channels, height, width, device=device),
            torch.randint(config.classes, (2 * batch_size,), device=device),
        ),
        classification_loss,
        batch_size,
        1 + rows * columns,
        config.depth,
        config.width,
        causal=False,
    )


LARGE = (
    decoder_case(DecoderConfig(32_000, 768, 12, 12, 4, 2048), batch_size=16, tokens=1024),
    vit_case("ViT-B/16", VisionTransformerConfig(classes=1000), batch_size=128),
)
TINY = (
    decoder_case(DecoderConfig(31, 16, 2, 2, 1, 32), batch_size=4, tokens=8),
    vit_case("tiny ViT", VisionTransformerConfig(8, 4, 1, 16, 2, 2, 32, classes=3), batch_size=4),
)


def measure(compile_options: Iterable[bool] = (False, True)) -> list[Row]:
    """Return rows in tokens/s and, on a GPU, in memory and utilization."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for case in LARGE if device.type == "cuda" else TINY:
        for compile in compile_options:
            sides = [_train_and_measure(case, side, device, compile) for side in ("course", "transformers")]
            name = f"{case.name}, bfloat16{', compiled' if compile else ''}"
            for unit in sides[0]:
                make_row = Row.of_cost if unit == "MB" else Row.of_rate
                rows.append(make_row(name, *(side[unit] for side in sides), unit))
    return rows


def _train_and_measure(case: Case, side: str, device: torch.device, compile: bool) -> dict[str, float]:
    """Return what a short training measures, by unit."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    model = case.constructors[side]().to(device)
    batches = Batches(*case.arrays(device), batch_size=case.batch_size, seed=0)
    span, spans = (10, 7) if device.type == "cuda" else (1, 4)
    config = TrainingConfig(span * spans, 1e-4, precision="bfloat16", compile=compile, log_every=span)
    run = RunOptions(device=device, label=f"{side}{', compiled' if compile else ''}")
    history = train(model, batches, case.loss, config, run=run).history
    times = [after["seconds"] - before["seconds"] for before, after in pairwise(history)][1:]
    seconds_per_step = statistics.median(times) / span
    measured = {"tokens/s": case.batch_size * case.tokens / seconds_per_step}
    if device.type == "cuda":
        measured["MB"] = history[-1]["memory_mb"]
        peak = next((peak for chip, peak in PEAK_FLOPS.items() if chip in torch.cuda.get_device_name()), None)
        if peak is not None:
            flops = 3 * forward_flops(case, model, batches(0)) / seconds_per_step
            measured["% of the chip's FLOP/s"] = 100 * flops / peak
    return measured


@torch.no_grad()
def forward_flops(case: Case, model: nn.Module, batch: Tensor | tuple[Tensor, ...]) -> float:
    """Return the floating-point operations of a forward pass: linear layers, convolutions, attention's two products."""
    products = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal products
        products += 2 * output.numel() * module.weight[0].numel()

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    case.loss(model, batch)
    for hook in hooks:
        hook.remove()
    attention = 2 * 2 * case.depth * case.batch_size * case.tokens**2 * case.width
    return products + attention * (0.5 if case.causal else 1.0)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("there is no GPU, so tiny models are used: their numbers only show that the code runs")
    print_rows(measure())
