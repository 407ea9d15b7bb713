"""Distillation from a convolutional teacher (DeiT, arXiv:2012.12877): the loss and a small teacher.

The student is a `VisionTransformer` with `distillation_token=True` and classes: it has a head for each of both tokens.
"""

from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def hard_distillation_loss(
    class_logits: Float[Tensor, "batch classes"],
    distillation_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, "batch"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, ""]:
    """Return the mean of two cross-entropies (arXiv:2012.12877, eq. 3).

    The class logits are compared with the true labels, the distillation logits with the teacher's predicted classes.
    No gradient reaches the teacher.
    """
    # exercise 1.6: hard distillation
    teacher_labels = teacher_logits.argmax(dim=-1)
    return 0.5 * F.cross_entropy(class_logits, labels) + 0.5 * F.cross_entropy(distillation_logits, teacher_labels)
    # end exercise


class ConvolutionalTeacher(nn.Module):
    """A small convolutional network, whose architecture already encodes that neighboring pixels are related.

    Three stages of two 3×3 convolutions, each followed by batch normalization and ReLU. Between the stages, the sides
    are halved and the channels doubled. The mean over the last feature map is the input of the head.
    """

    def __init__(self, channels: int, classes: int, width: int = 32):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        stages = [convolution_stage(*pair) for pair in pairwise(widths)]
        # `ceil_mode` keeps an odd last row and column, which an image of 8×8 pixels needs.
        self.stages = nn.Sequential(
            stages[0], nn.MaxPool2d(2, ceil_mode=True), stages[1], nn.MaxPool2d(2, ceil_mode=True), stages[2]
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.stages(images).mean(dim=(2, 3)))


def convolution_stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build two 3×3 convolutions, each followed by batch normalization and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
