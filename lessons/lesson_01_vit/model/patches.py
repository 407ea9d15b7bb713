"""Cut images into square patches and project each to a token (arXiv:2010.11929, eq. 1)."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def patch_grid(images: Float[Tensor, "batch channels height width_px"], patch_size: int) -> tuple[int, int]:
    """Return rows and columns of patches. Raises ValueError when the sides are not multiples of `patch_size`."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise ValueError(f"image {height}×{width} does not divide into patches of {patch_size}; resize or pad it first")
    return height // patch_size, width // patch_size


def whole_patches(
    images: Float[Tensor, "batch channels height width_px"], grid: tuple[int, int], patch_size: int
) -> Float[Tensor, "batch channels grid_height grid_width_px"]:
    """Cut off what does not fill a row or a column of the grid, as a convolution with this stride does.

    SigLIP SO400M/14 encodes 27 × 27 patches of its images of 384 × 384 pixels.
    """
    rows, columns = grid
    return images[..., : rows * patch_size, : columns * patch_size]


def patchify(
    images: Float[Tensor, "batch channels height width_px"], patch_size: int
) -> Float[Tensor, "batch patches pixels"]:
    """Cut images into patches in row-major order.

    The pixels of a patch are in row-major order too, channel last:
    pixel (row, column), channel c has index (row · patch_size + column) · channels + c.
    Raises ValueError when the sides are not multiples of `patch_size`.
    """
    patch_grid(images, patch_size)
    # exercise 1.3: cut images into patches
    # Row-major token order, which the 2-D positions rely on.
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)
    return patches
    # end exercise


def unpatchify(
    patches: Float[Tensor, "batch patches pixels"], grid: tuple[int, int], patch_size: int
) -> Float[Tensor, "batch channels height width_px"]:
    """Assemble images from patches: the inverse of `patchify`, for a grid of (rows, columns)."""
    rows, columns = grid
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, w=columns, p=patch_size, q=patch_size)


class PatchEmbedding(nn.Module):
    """Cut an image into patches and project each to one token (arXiv:2010.11929, eq. 1).

    A patch's pixels are flattened row by row, channel last, and projected by one shared linear layer.
    This equals a convolution with stride = kernel = `patch_size`.

    Raises ValueError when the image's sides are not multiples of `patch_size`.
    """

    def __init__(self, patch_size: int, channels: int, width: int, *, bias: bool = True):
        super().__init__()
        self.patch_size, self.channels = patch_size, channels
        self.project = nn.Linear(channels * patch_size**2, width)
        if not bias:
            # Removed after creation, so that all later layers get the same random weights with and without a bias.
            self.project.register_parameter("bias", None)

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch patches width"]:
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images have shape {list(images.shape)}, expected [batch, {self.channels}, height, width]; "
                "check the order of the axes and the number of channels"
            )
        return self.project(patchify(images, self.patch_size))
