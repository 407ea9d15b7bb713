"""The residual block of convolutional image tokenizers, the published one and the one that is trained here."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Return a norm over groups of channels of each image; it mixes no images of a batch."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Compute x + conv(silu(norm(conv(silu(norm(x)))))).

    x passes a 1 × 1 convolution where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.first_norm = group_norm(in_channels, groups)
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second_norm = group_norm(out_channels, groups)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, x: Float[Tensor, "images in_channels height width"]
    ) -> Float[Tensor, "images out_channels height width"]:
        update = self.first(F.silu(self.first_norm(x)))
        update = self.second(F.silu(self.second_norm(update)))
        return self.shortcut(x) + update
