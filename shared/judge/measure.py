"""Measure the shipped judge on real renders, and write the tables of README.md.

    python -m shared.judge.measure

The measurements are kept in measurements.json with the hash of the checkpoint; a test compares all three.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.scene import COLORS, Scene
from data.toybox.tensors import render_tensors
from shared.atomic import write_atomically
from shared.cli import command_line
from shared.course.checkpoint import CHECKPOINTS_FOLDER, checkpoint_hash
from shared.course.readme import replace_generated
from shared.evaluation.frechet import frechet_distance
from shared.judge.checkpoint import OBJECTS, SCENES, SPLITS, measure_accuracy
from shared.judge.comparison import compare_scenes
from shared.judge.model import Judge
from shared.judge.predictions import image_features, predict_scenes
from shared.judge.pretrained import NAME, load_judge

FOLDER = Path(__file__).parent
PAGE, RECORD = FOLDER / "README.md", FOLDER / "measurements.json"
SIZES = (32, 48, 64, 96)
SAMPLE_SIZES = (100, 200, 500, 1000, 2000)
REFERENCE_SEED = TEST_SEED + 1
SIZE = 32
"""Side in pixels of the images that are corrupted and whose distance is measured."""


def blur(images: Tensor, std: float) -> Tensor:
    """Return images [batch, 3, size, size] blurred by a Gaussian of `std` pixels."""
    offsets = torch.arange(-4, 5)
    weights = torch.exp(-offsets.square() / (2 * std**2))
    kernel = (weights / weights.sum()).expand(3, 1, 1, -1)
    for kernels, padding in ((kernel, (4, 4, 0, 0)), (kernel.transpose(2, 3), (0, 0, 4, 4))):
        images = F.conv2d(F.pad(images, padding, mode="replicate"), kernels, groups=3)
    return images.clamp(0, 1)


def add_noise(images: Tensor, std: float) -> Tensor:
    """Return images with Gaussian noise of `std` per pixel and channel, where the pixel range is 1."""
    return (images + std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda images: images,
    "blur, 0.5 pixels": lambda images: blur(images, 0.5),
    "blur, 0.7 pixels": lambda images: blur(images, 0.7),
    "blur, 1 pixel": lambda images: blur(images, 1.0),
    "noise, 0.05": lambda images: add_noise(images, 0.05),
    "noise, 0.1": lambda images: add_noise(images, 0.1),
    "noise, 0.2": lambda images: add_noise(images, 0.2),
}


def recolor_one(scene: Scene) -> Scene:
    """Return the scene with the next color for its first object."""
    first, *others = scene.objects
    color = COLORS[(COLORS.index(first.color) + 1) % len(COLORS)]
    return scene._replace(objects=(first._replace(color=color), *others))


CHANGES: dict[str, Callable[[Scene], Scene]] = {
    "first object missing": lambda scene: scene._replace(objects=scene.objects[1:]),
    "first object in another color": recolor_one,
    "all objects red": lambda scene: scene._replace(objects=tuple(o._replace(color="red") for o in scene.objects)),
    "all objects circles": lambda scene: scene._replace(
        objects=tuple(o._replace(shape="circle") for o in scene.objects)
    ),
}


def render(scenes: Sequence[Scene]) -> Tensor:
    """Return renders as fractions, at the size that is corrupted."""
    return render_tensors(scenes, SIZE).float() / 255


def measure(judge: Judge, count: int = SCENES, sample_sizes: Sequence[int] = SAMPLE_SIZES) -> dict[str, Any]:
    """Return accuracies by image size and by corruption, and Fréchet distances by number of images and by change."""
    accuracy = {
        f"{size} × {size}, {combinations}": measure_accuracy(judge, split, size, count)
        for size in SIZES
        for combinations, split in SPLITS.items()
    }
    scenes = sample_scenes("test", TEST_SEED, max(count, *sample_sizes), OBJECTS)
    reference = sample_scenes("test", REFERENCE_SEED, max(count, *sample_sizes), OBJECTS)
    images = render(scenes[:count])
    corrupted = {
        name: compare_scenes(scenes[:count], predict_scenes(judge, corrupt(images)))
        for name, corrupt in CORRUPTIONS.items()
    }
    features, expected = (image_features(judge, render(each)) for each in (scenes, reference))
    bias = {str(number): frechet_distance(features[:number], expected[:number]) for number in sample_sizes}
    variants = {name: corrupt(images) for name, corrupt in CORRUPTIONS.items()}
    variants |= {name: render([change(scene) for scene in scenes[:count]]) for name, change in CHANGES.items()}
    distance = {
        name: frechet_distance(image_features(judge, variant), expected[:count]) for name, variant in variants.items()
    }
    return {"accuracy": accuracy, "corrupted": corrupted, "bias": bias, "distance": distance}


def tables(measured: Mapping[str, Any]) -> str:
    """Return the generated part of the page."""
    names = list(next(iter(measured["accuracy"].values())))
    header = f"{' | '.join(names)} |\n|---|{'---|' * len(names)}\n"

    def rows(entries: Mapping[str, Mapping[str, float]]) -> str:
        return "\n".join(
            f"| {row} | {' | '.join(f'{100 * scores[name]:.1f}' for name in names)} |"
            for row, scores in entries.items()
        )

    def distances(title: str, entries: Mapping[str, float]) -> str:
        body = "\n".join(f"| {row} | {value:.4f} |" for row, value in entries.items())
        return f"| {title} | distance |\n|---|---|\n{body}"

    return "\n\n".join(
        [
            f"**Accuracy on real renders**, in percent: {SCENES:,} scenes of one to five objects per row. *Seen* "
            "scenes hold only combinations that lessons train on. Each *unseen* scene holds a held-out combination.",
            f"| images | {header}{rows(measured['accuracy'])}",
            f"**Accuracy on corrupted renders**, in percent: the unseen scenes at {SIZE} × {SIZE}. Blur is Gaussian, "
            "with its standard deviation in pixels. Noise has its standard deviation in units of the pixel range.",
            f"| corruption | {header}{rows(measured['corrupted'])}",
            "**Fréchet distance between two sets of real renders**, by the number of images in each. It would be zero "
            "without bias.",
            distances("images per set", measured["bias"]),
            f"**Fréchet distance of changed renders** from other real renders, {SCENES:,} images each.",
            distances("change of every image", measured["distance"]),
        ]
    )


@command_line()
def main() -> None:
    torch.set_num_threads(1)
    measured = {"checkpoint": checkpoint_hash(CHECKPOINTS_FOLDER / NAME), **measure(load_judge())}
    write_atomically(RECORD, (json.dumps(measured, indent=1, ensure_ascii=False) + "\n").encode())
    page = replace_generated(PAGE.read_text(encoding="utf-8"), tables(measured), str(PAGE))
    write_atomically(PAGE, page.encode())
    print(tables(measured))


if __name__ == "__main__":
    sys.exit(main())
