"""The lesson's images as tensors, and the sizes of the model that fits them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.datasets.digits import digits
from data.datasets.image_folder import image_folder
from data.datasets.load import load
from lessons.lesson_01_vit.model import VisionTransformerConfig

# What a folder of one's own pictures is brought to.
FOLDER_SIZE = 32


@dataclass(frozen=True)
class Images:
    """A data set as tensors with pixels in [0, 1]; mean and spread are those of the training images."""

    train: Float[Tensor, "train channels height width_px"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test channels height width_px"]
    test_labels: Int[Tensor, " test"]
    class_names: tuple[str, ...]
    mean: float
    spread: float

    def standardize(self, pixels: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Pixels in [0, 1] → mean 0 and spread 1 over the training images."""
        return (pixels - self.mean) / self.spread

    @property
    def standardized_test(self) -> Float[Tensor, "test channels height width_px"]:
        """The held-out images as a model takes them."""
        return self.standardize(self.test)


def read_images(data: str, *, other_writers: bool = False) -> Images:
    """The data set called `data` (“folder:PATH” for one's own). Raises CourseError when it is not to be had.

    Of the digits a random fifth, the same in every run, is held out; with `other_writers` the last fifth instead,
    written by people who wrote none of the others.
    """
    if data == "digits":
        found = digits(other_writers=other_writers)
    elif data.startswith("folder:"):
        found = image_folder(data.removeprefix("folder:"), FOLDER_SIZE)
    else:
        found = load(data)

    def pixels(images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    train = pixels(found.train_images)
    return Images(
        train=train,
        train_labels=torch.from_numpy(found.train_labels),
        test=pixels(found.test_images),
        test_labels=torch.from_numpy(found.test_labels),
        class_names=found.class_names,
        mean=train.mean().item(),
        spread=train.std().item(),
    )


def small_config(images: Images, **changes) -> VisionTransformerConfig:
    """The lesson's own Vision Transformer: width 64, three blocks; for a digit, 16 patches of 2×2 pixels.

    The patch is the smallest of at least an eighth of the image, and at least 2 pixels, that divides both sides.
    """
    _, channels, height, width = images.train.shape
    least = max(2, height // 8, width // 8)
    patch_size = next(size for size in range(least, max(height, width) + 1) if not (height % size or width % size))
    sizes = {"patch_size": patch_size, "width": 64, "depth": 3, "heads": 4, "mlp_dim": 128}
    return VisionTransformerConfig(
        image_size=(height, width), channels=channels, classes=len(images.class_names), **(sizes | changes)
    )
