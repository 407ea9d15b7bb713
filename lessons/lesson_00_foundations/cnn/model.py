"""Residual networks (He et al., arXiv:1512.03385), and the network without convolution that they are measured against.

`ResNet` is the paper's network for CIFAR-10 (section 4.2): a stem, three stages of ever smaller and wider maps, the mean
over all places, a head. With `residual=False` it is the paper's plain network, shortcut for shortcut taken away.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "batch channels height width"]


def shortcut(x: Maps, out: int, stride: int) -> Float[Tensor, "batch out rows columns"]:
    """x as it is; where a block shrinks and widens, every stride-th pixel, and zeros for the new channels.

    The paper's option A (section 3.3): it has no parameters, so that a plain network of equal size exists.
    Raises ValueError when there are fewer channels than before.
    """
    if out < x.shape[1]:
        raise ValueError(f"a shortcut from {x.shape[1]} to {out} channels would forget some; a block widens or keeps")
    # exercise 0.14: the shortcut
    x = x[:, :, ::stride, ::stride]
    return F.pad(x, (0, 0, 0, 0, 0, out - x.shape[1]))
    # end exercise


class ResidualBlock(nn.Module):
    """y = relu(x + F(x)), where F is convolution, norm, relu, convolution, norm (eq. 1 and figure 2).

    If doing nothing is best, F has only to be zero. A plain block (`residual=False`) must learn to copy first.
    """

    def __init__(self, channels: int, out: int, stride: int = 1, residual: bool = True):
        super().__init__()
        # No bias: the norm that follows would take it away again.
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.out, self.stride, self.residual = out, stride, residual

    def forward(self, x: Maps) -> Float[Tensor, "batch out rows columns"]:
        branch = F.relu(self.norm1(self.conv1(x)))
        branch = self.norm2(self.conv2(branch))
        if self.residual:
            branch = branch + shortcut(x, self.out, self.stride)
        return F.relu(branch)


class ResNet(nn.Module):
    """Images [batch, channels, height, width] → logits [batch, classes]: 2 · stages · blocks + 2 layers deep.

    The first block of every stage but the first halves the sides of the maps. `pool` shrinks what comes out of the
    stem, for speed; the paper's network for CIFAR-10 has none. Raises ValueError for no stage or no block.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 3,
        *,
        pool: int = 1,
        residual: bool = True,
    ):
        super().__init__()
        if not widths or blocks < 1:
            raise ValueError(
                f"widths {tuple(widths)} and {blocks} blocks a stage make no network; give at least one each"
            )
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.blocks = nn.Sequential()
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                self.blocks.append(ResidualBlock(before, width, stride, residual))
                before = width
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # arXiv:1502.01852, eq. 14

    @classmethod
    def for_cifar10(cls, depth: int, **options) -> "ResNet":
        """The paper's network of `depth` = 6n + 2 layers. Raises ValueError for another depth."""
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a depth of {depth} is not 6n + 2; choose 8, 14, 20, 32, 44, 56 or 110")
        return cls(3, 10, (16, 32, 64), (depth - 2) // 6, **options)

    def features(self, images: Maps) -> Float[Tensor, "batch out rows columns"]:
        """The last maps, before places are averaged."""
        x = self.pool(F.relu(self.stem_norm(self.stem(images))))
        return self.blocks(x)

    def forward(self, images: Maps) -> Float[Tensor, "batch classes"]:
        # The mean over places forgets where things were: an answer that holds here holds there.
        return self.head(self.features(images).mean(dim=(2, 3)))


class MLP(nn.Module):
    """Every pixel to every unit, `depth` hidden layers of `hidden` units, each with a batch norm; 0 layers: softmax regression."""

    def __init__(self, inputs: int, hidden: int, classes: int, depth: int = 1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten())
        for _ in range(depth):
            self.layers.extend([nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()])
            inputs = hidden
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Maps) -> Float[Tensor, "batch classes"]:
        return self.head(self.layers(images))


def count_parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def mlp_of_equal_size(model: nn.Module, inputs: int, classes: int, depth: int = 1) -> MLP:
    """The MLP whose number of parameters comes nearest to that of `model`."""
    wanted = count_parameters(model)

    def size(hidden: int) -> int:
        with torch.device("meta"):
            return count_parameters(MLP(inputs, hidden, classes, depth))

    high = next(2**power for power in range(1, 30) if size(2**power) > wanted)
    hidden = min(range(high // 2, high + 1), key=lambda hidden: abs(size(hidden) - wanted))
    return MLP(inputs, hidden, classes, depth)
