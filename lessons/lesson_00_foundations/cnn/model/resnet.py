"""Residual networks (He et al., arXiv:1512.03385), and the MLP that they are compared with.

`ResNet` is the paper's network for CIFAR-10 (section 4.2): a stem, three stages of smaller and wider feature maps,
global average pooling, a linear head. `residual=False` removes every shortcut, which gives the paper's plain network.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Maps = Float[Tensor, "batch channels height width"]


def shortcut(x: Maps, out: int, stride: int) -> Float[Tensor, "batch out rows columns"]:
    """Return x; when a block shrinks and widens, take every stride-th pixel and add zero channels up to `out`.

    This is the paper's option A (section 3.3). It has no parameters, so a plain network of equal size exists.
    Raises ValueError when `out` is less than the number of channels.
    """
    if out < x.shape[1]:
        raise ValueError(f"a shortcut from {x.shape[1]} to {out} channels would drop some; use at least as many")
    # exercise 0.14: the shortcut
    x = x[:, :, ::stride, ::stride]
    return F.pad(x, (0, 0, 0, 0, 0, out - x.shape[1]))
    # end exercise


class ResidualBlock(nn.Module):
    """Compute y = relu(x + F(x)), where F is convolution, norm, relu, convolution, norm (eq. 1 and figure 2).

    If the identity is optimal, F only has to become zero. A plain block (`residual=False`) must learn to copy x.
    """

    def __init__(self, channels: int, out: int, stride: int = 1, residual: bool = True):
        super().__init__()
        # No bias: the batch norm that follows would remove it.
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
    """Classify images [batch, channels, height, width]; return logits [batch, classes].

    The network is 2 · stages · blocks + 2 layers deep. The first block of every stage but the first halves the sides of
    the maps. `pool` shrinks the stem's output, for speed; the paper's network for CIFAR-10 has no such pooling.
    Raises ValueError without a stage or a block.
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
                f"widths {tuple(widths)} and {blocks} blocks per stage make no network; give at least one of each"
            )
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.blocks = nn.Sequential()
        previous_width = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                self.blocks.append(ResidualBlock(previous_width, width, stride, residual))
                previous_width = width
        self.head = nn.Linear(previous_width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # arXiv:1502.01852, eq. 14

    @classmethod
    def for_cifar10(cls, depth: int, **options) -> "ResNet":
        """Build the paper's network of `depth` = 6n + 2 layers. Raises ValueError for another depth."""
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a depth of {depth} is not 6n + 2; choose 8, 14, 20, 32, 44, 56 or 110")
        return cls(3, 10, (16, 32, 64), (depth - 2) // 6, **options)

    def features(self, images: Maps) -> Float[Tensor, "batch out rows columns"]:
        """Return the last feature maps, before global average pooling."""
        x = self.pool(F.relu(self.stem_norm(self.stem(images))))
        return self.blocks(x)

    def forward(self, images: Maps) -> Float[Tensor, "batch classes"]:
        # The mean over positions discards where a pattern was, so the logits hardly depend on an object's position.
        return self.head(self.features(images).mean(dim=(2, 3)))


class MLP(nn.Module):
    """Classify flattened images with `depth` hidden layers of `mlp_dim` units, each followed by a batch norm.

    With a depth of 0 this is softmax regression.
    """

    def __init__(self, inputs: int, mlp_dim: int, classes: int, depth: int = 1):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten())
        for _ in range(depth):
            self.layers.extend([nn.Linear(inputs, mlp_dim, bias=False), nn.BatchNorm1d(mlp_dim), nn.ReLU()])
            inputs = mlp_dim
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Maps) -> Float[Tensor, "batch classes"]:
        return self.head(self.layers(images))


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def mlp_of_equal_size(model: nn.Module, inputs: int, classes: int, depth: int = 1) -> MLP:
    """Build the MLP whose number of parameters is closest to that of `model`."""
    target = count_parameters(model)

    def mlp_parameters(mlp_dim: int) -> int:
        with torch.device("meta"):
            return count_parameters(MLP(inputs, mlp_dim, classes, depth))

    high = next(2**power for power in range(1, 30) if mlp_parameters(2**power) > target)
    mlp_dim = min(range(high // 2, high + 1), key=lambda width: abs(mlp_parameters(width) - target))
    return MLP(inputs, mlp_dim, classes, depth)
