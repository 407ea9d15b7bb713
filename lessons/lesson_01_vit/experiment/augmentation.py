"""Images made a little different each time they are shown, so that a small training set goes further.

A ViT is born knowing nothing of neighbourhoods (arXiv:2010.11929, section 3.1, "Inductive bias"); with few images,
what it is not told by its architecture it must be shown.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

Images = Float[Tensor, "batch channels height width_px"]


def jitter(images: Images, generator: Generator) -> Images:
    """Each image turned by up to 12°, scaled and slanted by up to 15 % and 20 %, and moved by up to 15 % of half a side.

    The amounts are what different people's handwriting does to a digit; what comes in at the edge is paper (0).
    """
    batch = images.shape[0]

    def uniform(most: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape, generator=generator, device=images.device) * 2 - 1) * most

    angle, slant, scale = uniform(math.radians(12)), uniform(0.2), 1 + uniform(0.15, 2)
    rows = [
        torch.stack([scale[:, 0] * angle.cos(), -angle.sin() + slant], dim=1),
        torch.stack([angle.sin(), scale[:, 1] * angle.cos()], dim=1),
    ]
    moves = torch.cat([torch.stack(rows, dim=1), uniform(0.15, 2, 1)], dim=2)
    where = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, where, align_corners=False)


def crop_and_flip(images: Images, generator: Generator, padding: int = 4) -> Images:
    """Each image moved by up to `padding` pixels, and mirrored half of the time: the usual pair for CIFAR-10."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect")

    def choose(most: int) -> Tensor:
        return torch.randint(most, (batch, 1), generator=generator, device=images.device)

    columns = torch.arange(width, device=images.device)
    columns = torch.where(choose(2).bool(), columns.flip(0), columns) + choose(2 * padding + 1)
    rows = torch.arange(height, device=images.device) + choose(2 * padding + 1)
    sample = torch.arange(batch, device=images.device)[:, None, None]
    # Indexed [batch, height, width, channels]: the channels come along, last.
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def shuffle_patches(images: Images, patch_size: int, generator: Generator) -> Images:
    """The same patches of each image, in an order drawn anew for each."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    blocks = images.reshape(batch, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(batch, rows * columns, -1)
    order = torch.rand(batch, rows * columns, generator=generator, device=images.device).argsort(dim=1)
    blocks = blocks.gather(1, order[..., None].expand_as(blocks))
    blocks = blocks.reshape(batch, rows, columns, channels, patch_size, patch_size).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(batch, channels, height, width)


def mixed(
    images: Images, labels: Int[Tensor, " batch"], classes: int, generator: Generator, smoothing: float = 0.1
) -> tuple[Images, Float[Tensor, "batch classes"]]:
    """Half of the batches blended (mixup, arXiv:1710.09412), half with a rectangle exchanged (CutMix, arXiv:1905.04899).

    Each image meets its neighbor in the batch; the smoothed labels are mixed in the same proportion.
    """

    def uniform() -> float:
        return float(torch.rand(1, generator=generator, device=images.device))

    soft = F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
    other_images, other_soft = images.roll(1, dims=0), soft.roll(1, dims=0)
    if uniform() < 0.5:
        share = _beta(0.8, generator, images.device)
        mixture = share * images + (1 - share) * other_images
    else:
        height, width = images.shape[-2:]
        side = math.sqrt(uniform())  # Beta(1, 1) is uniform: the share of the picture that comes from the other
        box_height, box_width = round(height * side), round(width * side)
        top, left = int(uniform() * (height - box_height + 1)), int(uniform() * (width - box_width + 1))
        mixture = images.clone()
        mixture[..., top : top + box_height, left : left + box_width] = other_images[
            ..., top : top + box_height, left : left + box_width
        ]
        share = 1 - box_height * box_width / (height * width)
    return mixture, share * soft + (1 - share) * other_soft


def _beta(alpha: float, generator: Generator, device: torch.device) -> float:
    """One draw from Beta(α, α), by Jöhnk's method: PyTorch's own sampler takes no generator."""
    while True:
        x, y = (torch.rand(2, generator=generator, device=device) ** (1 / alpha)).tolist()
        if 0 < x + y <= 1:
            return x / (x + y)
