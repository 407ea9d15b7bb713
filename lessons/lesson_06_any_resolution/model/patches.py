"""One image as a sequence of patches with coordinates, and token dropping (arXiv:2307.06304, sections 2.1 and 2.2).

A patch keeps its row and column, so that tokens can be dropped, packed and reordered without losing their position.
"""

from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_01_vit.model import patch_coordinates, patchify


def cut_patches(
    image: Float[Tensor, "channels height width_px"], patch_size: int
) -> tuple[Float[Tensor, "patches patch_pixels"], Int[Tensor, "patches 2"]]:
    """Cut an image of any size into patches in row-major order; return their pixels and their (row, column).

    The pixels of a patch are in row-major order, channel last, as in the published image processor.
    Raises ValueError when the sides are not multiples of `patch_size`.
    """
    # exercise 6.4: patches and their coordinates
    patches = patchify(image[None], patch_size)[0]
    rows, columns = image.shape[1] // patch_size, image.shape[2] // patch_size
    return patches, patch_coordinates((rows, columns), image.device)
    # end exercise


@dataclass(frozen=True, eq=False)
class ImagePatches:
    """The patches of one image, all of them or what token dropping has kept.

    coordinates  row and column of each patch in the image's grid
    grid         rows and columns of the whole image

    Raises ValueError when a patch lies outside the grid.
    """

    patches: Float[Tensor, "tokens patch_pixels"]
    coordinates: Int[Tensor, "tokens 2"]
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        limits = torch.tensor(self.grid, device=self.coordinates.device)
        if ((self.coordinates < 0) | (self.coordinates >= limits)).any():
            raise ValueError(f"some coordinates lie outside the grid of {self.grid[0]}×{self.grid[1]} patches")

    @classmethod
    def from_image(cls, image: Float[Tensor, "channels height width_px"], patch_size: int) -> "ImagePatches":
        """Cut an image into patches. Raises ValueError when the sides are not multiples of `patch_size`."""
        grid = image.shape[1] // patch_size, image.shape[2] // patch_size
        return cls(*cut_patches(image, patch_size), grid)

    def __len__(self) -> int:
        return len(self.patches)

    def select(self, indices: Int[Tensor, "kept"]) -> "ImagePatches":
        """Return some of the patches; they keep their coordinates."""
        return ImagePatches(self.patches[indices], self.coordinates[indices], self.grid)


# ── Token dropping (section 2.2) ──────────────────────────────────────────────────────────────────────────────────────


def kept_indices(noise: Float[Tensor, "tokens"], rate: float) -> Int[Tensor, "kept"]:
    """Return the indices of the tokens that stay when the fraction `rate` is dropped, in ascending order.

    The ⌊tokens · rate⌋ tokens with the highest noise are dropped; at least one stays. The
    product has a tolerance of 1e-6: 28.999… counts as 29.
    Raises ValueError for a rate outside [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"the drop rate is {rate}, expected a fraction of the tokens from 0 to below 1")
    # exercise 6.5: token dropping
    # A small amount is added, so that 0.29 · 100 counts as 29 and not as 28.999….
    dropped = min(int(len(noise) * rate + 1e-6), len(noise) - 1)
    return noise.argsort()[: len(noise) - dropped].sort().values
    # end exercise


def drop_tokens(image: ImagePatches, rate: float, generator: torch.Generator | None = None) -> ImagePatches:
    """Drop a random fraction of an image's patches, for training. Raises as `kept_indices` does."""
    noise = torch.rand(len(image), generator=generator)
    return image.select(kept_indices(noise, rate).to(image.patches.device))


def sample_drop_rates(images: int, mean: float, std: float, random: Random) -> list[float]:
    """Draw a drop rate per image from a beta distribution with this mean and standard deviation (section 3.3).

    With a rate per image, some images are seen whole during training, as all are at inference.
    Raises ValueError when no beta distribution has these moments.
    """
    if std == 0.0 and 0.0 <= mean < 1.0:
        return [mean] * images
    if not 0.0 < mean < 1.0 or not 0.0 < std < (mean * (1 - mean)) ** 0.5:
        raise ValueError(
            f"drop rates with mean {mean} and standard deviation {std}; expected a mean between 0 and 1 and a standard "
            "deviation below the square root of mean · (1 − mean)"
        )
    concentration = mean * (1 - mean) / std**2 - 1
    # A rate of exactly 1 would leave no token; it is possible by rounding only.
    rates = [random.betavariate(mean * concentration, (1 - mean) * concentration) for _ in range(images)]
    return [min(rate, 1 - 1e-6) for rate in rates]
