"""Train the judge on rendered scenes: every combination of attributes, with blur, noise and shifts of color."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.scene import COLORS, SHAPES, Scene, make_scene, pick, stream
from data.toybox.tensors import render_tensors
from shared.judge.labels import PlaceLabels, label_scenes
from shared.judge.model import Judge
from shared.judge.pixels import resize_pixels
from shared.training import RunOptions, TrainingConfig, train

PURPOSE = 60
"""Random streams of the judge's scenes: no split of the toy world and no lesson draws from them."""
MOST_OBJECTS = 6
EMPTY = 16
"""One scene in this many has no object."""
PRESENCE_WEIGHT = 4.0


@dataclass(frozen=True)
class JudgeRecipe:
    """Describe the training.

    sizes       image sizes in pixels with their fraction of each batch
    blur        largest weight of each of the two neighbors in a blur along one axis
    noise       largest standard deviation of Gaussian noise per pixel and channel, in units of the pixel range
    color_gain  largest relative change of a channel's contrast
    color_shift largest change of a channel's brightness, in units of the pixel range
    """

    steps: int = 2800
    batch_size: int = 32
    learning_rate: float = 2e-3
    sizes: tuple[tuple[int, float], ...] = ((32, 0.5), (64, 0.3), (48, 0.1), (96, 0.1))
    blur: float = 0.25
    noise: float = 0.08
    color_gain: float = 0.06
    color_shift: float = 0.03
    seed: int = 0


def training_scene(seed: int, number: int) -> Scene:
    """Return a scene of up to six objects, whose colors and shapes are drawn independently from all combinations.

    Objects of the course's scenes often share a color or shape. Without this rule the judge could infer one object
    from another, and so correct a generated image's mistakes.
    """
    scene = make_scene(seed, number, objects=(1, MOST_OBJECTS), purpose=PURPOSE)
    if number % EMPTY == 0:
        return scene._replace(objects=())
    rng = stream(seed, number, PURPOSE + 1)
    return scene._replace(
        objects=tuple(each._replace(shape=pick(rng, SHAPES), color=pick(rng, COLORS)) for each in scene.objects)
    )


def augment(
    pixels: Float[Tensor, "batch 3 size size"], recipe: JudgeRecipe, generator: torch.Generator
) -> Float[Tensor, "batch 3 size size"]:
    """Blur images, shift their colors and add noise: each kind to about half of the images, with a random strength.

    A blur mixes each pixel with its two neighbors along each axis. Its two weights differ, which also moves the image
    by up to `recipe.blur` pixels.
    """
    count = len(pixels)

    def strength(*shape: int) -> Tensor:
        """Return uniform numbers from 0 to 1 for half of the images, and 0 for the rest."""
        applied = torch.rand(count, *(1 for _ in shape), generator=generator) < 0.5
        return torch.rand(count, *shape, generator=generator) * applied

    size = pixels.shape[-1]
    for axis in (2, 3):
        before, after = (recipe.blur * strength(2, 1, 1, 1)).unbind(dim=1)
        padded = F.pad(pixels, (1, 1, 0, 0) if axis == 3 else (0, 0, 1, 1), mode="replicate")
        pixels = (
            (1 - before - after) * pixels + before * padded.narrow(axis, 0, size) + after * padded.narrow(axis, 2, size)
        )
    sign = torch.randint(0, 2, (2, count, 3, 1, 1), generator=generator) * 2 - 1
    pixels = 0.5 + (pixels - 0.5) * (1 + recipe.color_gain * strength(3, 1, 1) * sign[0])
    pixels = pixels + recipe.color_shift * strength(3, 1, 1) * sign[1]
    noise = torch.randn(pixels.shape, generator=generator)
    return (pixels + recipe.noise * strength(1, 1, 1) * noise).clamp(0, 1)


def judge_batch(recipe: JudgeRecipe, index: int) -> tuple[Tensor, PlaceLabels]:
    """Return batch number `index`: augmented pixels [batch, 3, 64, 64] of every size, and labels."""
    first = index * recipe.batch_size
    scenes = [training_scene(recipe.seed, number) for number in range(first, first + recipe.batch_size)]
    generator = torch.Generator().manual_seed(recipe.seed * 10_000_000 + index)
    parts, start = [], 0
    for size, count in _counts(recipe):
        rendered = render_tensors(scenes[start : start + count], size).float() / 255
        parts.append(resize_pixels(augment(rendered, recipe, generator)))
        start += count
    return torch.cat(parts), label_scenes(scenes)


def _counts(recipe: JudgeRecipe) -> list[tuple[int, int]]:
    """Return the number of images of each size in a batch; the first size gets what rounding leaves."""
    counts = [(size, round(fraction * recipe.batch_size)) for size, fraction in recipe.sizes[1:]]
    return [(recipe.sizes[0][0], recipe.batch_size - sum(count for _, count in counts)), *counts]


def judge_loss(model: nn.Module, batch: tuple[Tensor, PlaceLabels]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss and the accuracies of one batch.

    The loss is the sum of the binary cross-entropy of presence over all places, the cross-entropies of the attributes
    and the L1 loss of the center, the latter two over all objects. The weight of presence is larger, because one pixel
    decides to which of two places an object near their border belongs.
    """
    pixels, labels = batch
    logits = model(pixels)
    present = labels.presence > 0
    loss = PRESENCE_WEIGHT * F.binary_cross_entropy_with_logits(logits.presence, labels.presence)
    metrics = {"presence": ((logits.presence > 0) == present).float().mean()}
    for name, values in logits.attributes.items():
        chosen, expected = values[present], labels.attributes[name][present]
        loss = loss + F.cross_entropy(chosen, expected)
        metrics[name] = (chosen.argmax(dim=-1) == expected).float().mean()
    return loss + F.l1_loss(logits.center[present], labels.center[present]), metrics


def train_judge(recipe: JudgeRecipe, run: RunOptions) -> Judge:
    """Train a judge and return it in evaluation mode."""
    torch.manual_seed(recipe.seed)
    model = Judge()
    config = TrainingConfig(
        recipe.steps,
        recipe.learning_rate,
        warmup_steps=recipe.steps // 20,
        seed=recipe.seed,
        log_every=max(1, recipe.steps // 60),
        checkpoint_every=500,
    )
    result = train(model, lambda index: judge_batch(recipe, index), judge_loss, config, run=run)
    assert isinstance(result.model, Judge)
    return result.model.eval()
