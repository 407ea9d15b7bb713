"""The lesson's images as tensors, their augmentation, and the config of the model that fits them."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from data.datasets.digits import digits
from data.datasets.image_folder import image_folder
from data.datasets.load import load
from data.datasets.tensors import to_pixels
from lessons.lesson_01_vit.model import VisionTransformerConfig

Images = Float[Tensor, "batch channels height width_px"]

# Images of a user's folder are resized to this side.
FOLDER_IMAGE_SIZE = 32


@dataclass(frozen=True)
class ImageData:
    """A data set as tensors with pixels in [0, 1]; `mean` and `std` are those of the training images."""

    train: Float[Tensor, "train channels height width_px"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test channels height width_px"]
    test_labels: Int[Tensor, " test"]
    class_names: tuple[str, ...]
    mean: float
    std: float

    def standardize(self, pixels: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Shift and scale pixels in [0, 1] to mean 0 and standard deviation 1 over the training images."""
        return (pixels - self.mean) / self.std

    @property
    def standardized_test(self) -> Float[Tensor, "test channels height width_px"]:
        """The held-out images as the model's input."""
        return self.standardize(self.test)


def load_images(name: str, *, other_writers: bool = False) -> ImageData:
    """Load the data set `name` (“folder:PATH” for a user's images). Raises CourseError when it is not available.

    A random fifth of the digits is held out, the same in every run. With `other_writers`, the last fifth is held out
    instead, written by people who wrote none of the training digits.
    """
    if name == "digits":
        dataset = digits(other_writers=other_writers)
    elif name.startswith("folder:"):
        dataset = image_folder(name.removeprefix("folder:"), FOLDER_IMAGE_SIZE)
    else:
        dataset = load(name)

    if dataset.note:
        print(f"note: {dataset.name}: {dataset.note}", file=sys.stderr, flush=True)
    train = to_pixels(dataset.train_images)
    return ImageData(
        train=train,
        train_labels=torch.from_numpy(dataset.train_labels),
        test=to_pixels(dataset.test_images),
        test_labels=torch.from_numpy(dataset.test_labels),
        class_names=dataset.class_names,
        mean=train.mean().item(),
        std=train.std().item(),
    )


def small_config(images: ImageData, **changes: Any) -> VisionTransformerConfig:
    """Return the config of the lesson's Vision Transformer: width 64, three blocks; 16 patches of 2×2 for a digit.

    The patch size is the smallest that divides both sides and is at least 2 and at least an eighth of each side.
    """
    _, channels, height, width = images.train.shape
    minimum = max(2, height // 8, width // 8)
    patch_size = next(size for size in range(minimum, max(height, width) + 1) if not (height % size or width % size))
    sizes = {"patch_size": patch_size, "width": 64, "depth": 3, "heads": 4, "mlp_dim": 128}
    return VisionTransformerConfig(
        image_size=(height, width), channels=channels, classes=len(images.class_names), **(sizes | changes)
    )


# ── Augmentation ──────────────────────────────────────────────────────────────────────────────────────────────────────
# A ViT has no built-in notion of neighboring pixels (arXiv:2010.11929, section 3.1, "Inductive bias"). With few images,
# augmented images must teach what the architecture does not contain.


def jitter(images: Images, generator: Generator) -> Images:
    """Rotate by up to 12°, shear by up to 20 %, scale by up to 15 %, shift by up to 15 % of half a side.

    The amounts are those by which the handwriting of different people differs; pixels from outside the image are 0.
    """
    batch = images.shape[0]

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape, generator=generator, device=images.device) * 2 - 1) * limit

    angle, shear, scale = uniform(math.radians(12)), uniform(0.2), 1 + uniform(0.15, 2)
    rows = [
        torch.stack([scale[:, 0] * angle.cos(), -angle.sin() + shear], dim=1),
        torch.stack([angle.sin(), scale[:, 1] * angle.cos()], dim=1),
    ]
    transforms = torch.cat([torch.stack(rows, dim=1), uniform(0.15, 2, 1)], dim=2)
    sampling_grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
    return F.grid_sample(images, sampling_grid, align_corners=False)


def jitter_batches(images: ImageData) -> Callable[[tuple[Tensor, Tensor], Generator], tuple[Tensor, Tensor]]:
    """Return the augmentation of a batch (pixels, labels): jitter the pixels, then standardize them."""

    def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        pixels, labels = batch
        return images.standardize(jitter(pixels, generator)), labels

    return augment


def shuffle_patches(images: Images, patch_size: int, generator: Generator) -> Images:
    """Put the patches of each image into a random order, drawn per image."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    blocks = images.reshape(batch, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(batch, rows * columns, -1)
    order = torch.rand(batch, rows * columns, generator=generator, device=images.device).argsort(dim=1)
    blocks = blocks.gather(1, order[..., None].expand_as(blocks))
    blocks = blocks.reshape(batch, rows, columns, channels, patch_size, patch_size).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(batch, channels, height, width)


def mix(
    images: Images, labels: Int[Tensor, " batch"], classes: int, generator: Generator, smoothing: float = 0.1
) -> tuple[Images, Float[Tensor, "batch classes"]]:
    """Blend each image with its neighbor in the batch: mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899).

    Each is applied to half of the batches. The smoothed labels are mixed in the same proportion.
    """

    def uniform() -> float:
        return float(torch.rand(1, generator=generator, device=images.device))

    soft = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    other_images, other_soft = images.roll(1, dims=0), soft.roll(1, dims=0)
    if uniform() < 0.5:
        fraction = _beta(0.8, generator, images.device)
        mixture = fraction * images + (1 - fraction) * other_images
    else:
        height, width = images.shape[-2:]
        side = math.sqrt(uniform())  # Beta(1, 1) is uniform: the fraction of the area that comes from the other image
        box_height, box_width = round(height * side), round(width * side)
        top, left = int(uniform() * (height - box_height + 1)), int(uniform() * (width - box_width + 1))
        mixture = images.clone()
        mixture[..., top : top + box_height, left : left + box_width] = other_images[
            ..., top : top + box_height, left : left + box_width
        ]
        fraction = 1 - box_height * box_width / (height * width)
    return mixture, fraction * soft + (1 - fraction) * other_soft


def _beta(alpha: float, generator: Generator, device: torch.device) -> float:
    """Draw from Beta(α, α) by Jöhnk's method; PyTorch's own sampler takes no generator."""
    while True:
        x, y = (torch.rand(2, generator=generator, device=device) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
