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


<<<<<<< HEAD
=======
class DistilledVisionTransformer(VisionTransformer):
    """A Vision Transformer with a second token that listens to a teacher, and a head for each (section 4).

    Raises ValueError for a config without `distillation_token` or without classes.
    """

    def __init__(self, config: VisionTransformerConfig):
        if not (config.class_token and config.distillation_token and config.classes):
            raise ValueError("a distilled model needs class_token=True, distillation_token=True and classes > 0")
        super().__init__(config)
        self.distillation_head = nn.Linear(config.width, config.classes)
        nn.init.normal_(self.distillation_head.weight, std=0.02)
        nn.init.zeros_(self.distillation_head.bias)

    def head_logits(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """The logits of the class token and of the distillation token: what the loss wants."""
        tokens = self.features(images)
        return self.head(tokens[:, 0]), self.distillation_head(tokens[:, 1])

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch classes"]:
        """The mean of both heads' logits: what the paper classifies with once training is over."""
        return torch.stack(self.head_logits(images)).mean(dim=0)


>>>>>>> 84339b8 (Apply the recorded renames)
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
