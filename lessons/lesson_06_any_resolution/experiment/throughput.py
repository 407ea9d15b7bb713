"""Packing against padding on the sizes of photographs: how full the rows are, and patches per second of training.

No photographs are at hand; only their sizes matter. They follow those of COCO's training images: 90 % of the ratios of
height to width lie between 0.6 and 1.5, and 90 % of the pixel counts between 167,500 and 355,840. Both are drawn from
log-normal distributions with these quantiles. As in NaViT's training (arXiv:2307.06304, section 2.2), each image is
then resized to a random resolution: √(height · width) is uniform between 64 and 256 pixels. With patches of 16 pixels
an image has 16 to 256 of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import median

import torch
from torch import Tensor, nn

from lessons.lesson_06_any_resolution.model import (
    ImagePatches,
    NaViT,
    NaViTConfig,
    PatchBatch,
    assign_rows,
    budget_grid,
    pack,
    packing_efficiency,
    pad,
)
from shared.course.context import RunContext

ASPECTS, PIXELS = (0.6, 1.5), (167_500, 355_840)
"""The 5 % and the 95 % quantile of COCO's height / width, and of its pixels per image."""
NORMAL_95 = 1.645
"""The 95 % quantile of the standard normal distribution."""
RESOLUTIONS = (64, 256)
PATCH_SIZE, ROW_LENGTH = 16, 256
Size = tuple[int, int]


def photo_sizes(count: int, random: Random) -> list[Size]:
    """Draw heights and widths of photographs in pixels."""
    sizes = []
    for _ in range(count):
        aspect, pixels = _log_normal(ASPECTS, random), _log_normal(PIXELS, random)
        sizes.append((round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))))
    return sizes


def _log_normal(quantiles: tuple[float, float], random: Random) -> float:
    low, high = map(math.log, quantiles)
    return math.exp(random.gauss((low + high) / 2, (high - low) / (2 * NORMAL_95)))


def random_grids(sizes: Sequence[Size], random: Random) -> list[Size]:
    """Return each image's rows and columns of patches at a random resolution."""
    budgets = [round((random.uniform(*RESOLUTIONS) / PATCH_SIZE) ** 2) for _ in sizes]
    return [budget_grid(*size, PATCH_SIZE, budget) for size, budget in zip(sizes, budgets, strict=True)]


def measure_packing(
    context: RunContext, *, images: int, batch_size: int, rounds: int, width: int = 128, depth: int = 4
) -> dict:
    """Measure the efficiency of packing on `images` images, and patches per second on batches of `batch_size`.

    rounds  batches; each is trained on twice, once in packed and once in padded rows, in turns

    Packed and padded rows hold the same images and are equally long. Speed is the median over batches of the patches of
    images (padding does not count) per second of one forward and backward pass.
    """
    random = Random(context.seed)
    sizes = photo_sizes(images, random)
    lengths = [rows * columns for rows, columns in random_grids(sizes, random)]
    at_budget = [math.prod(budget_grid(*size, PATCH_SIZE, ROW_LENGTH)) for size in sizes]
    measured = {
        "padded_efficiency": packing_efficiency(lengths, images, max(lengths)),
        "padded_efficiency_at_budget": packing_efficiency(at_budget, images, ROW_LENGTH),
        "lengths": lengths[:batch_size],
    }
    for strategy in ("first-fit", "first-fit-decreasing", "best-fit-decreasing"):
        rows = len(assign_rows(lengths, ROW_LENGTH, strategy))
        measured[strategy] = packing_efficiency(lengths, rows, ROW_LENGTH)
    return measured | measure_speed(context, batch_size, rounds, width, depth)


def measure_speed(context: RunContext, batch_size: int, rounds: int, width: int, depth: int) -> dict[str, float]:
    """Return patches per second in packed and in padded rows, and their ratio."""
    torch.manual_seed(context.seed)
    random = Random(context.seed + 1)
    heads = max(1, width // 32)
    config = NaViTConfig(PATCH_SIZE, width=width, depth=depth, heads=heads, mlp_dim=4 * width, pooling="mean")
    model = NaViT(config).to(context.device)
    speeds: dict[str, list[float]] = {"packed": [], "padded": []}
    builders: dict[str, Callable[[Sequence[ImagePatches]], PatchBatch]] = {
        "packed": lambda images: pack(images, ROW_LENGTH),
        "padded": lambda images: pad(images, ROW_LENGTH),
    }
    for number in range(rounds + 1):
        grids = random_grids(photo_sizes(batch_size, random), random)
        images = [noise_image(grid) for grid in grids]
        for name, build in builders.items():
            seconds = seconds_of_step(model, build(images).to(context.device))
            if number:  # the first batch warms up
                speeds[name].append(sum(map(len, images)) / seconds)
    medians = {f"{name}_speed": median(values) for name, values in speeds.items()}
    pairs = zip(speeds["packed"], speeds["padded"], strict=True)
    return medians | {"speed_ratio": median(packed / padded for packed, padded in pairs)}


def noise_image(grid: Size) -> ImagePatches:
    """Return an image of random pixels; the time of a step does not depend on them."""
    return ImagePatches.from_image(torch.randn(3, grid[0] * PATCH_SIZE, grid[1] * PATCH_SIZE), PATCH_SIZE)


def seconds_of_step(model: nn.Module, batch: PatchBatch) -> float:
    """Return the seconds of a forward and a backward pass."""
    _synchronize(batch.patches)
    start = time.perf_counter()
    model.zero_grad()
    model(batch).square().mean().backward()
    _synchronize(batch.patches)
    return time.perf_counter() - start


def _synchronize(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
