"""Learning from a convolutional teacher: DeiT's distillation token (arXiv:2012.12877)."""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model.config import VisionTransformerConfig
from lessons.lesson_01_vit.model.vit import VisionTransformer


def hard_distillation_loss(
    class_logits: Float[Tensor, "batch classes"],
    distillation_logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, "batch"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, ""]:
    """Half the loss to the true label, half to what the teacher would have said (arXiv:2012.12877, eq. 3).

    The class token answers for the label and the distillation token for the teacher's decision; the teacher itself
    learns nothing from it.
    """
    # exercise 1.6: learn from the teacher's decision
    decision = teacher_logits.argmax(dim=-1)
    return 0.5 * F.cross_entropy(class_logits, labels) + 0.5 * F.cross_entropy(distillation_logits, decision)
    # end exercise


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

    def both_logits(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """The logits of the class token and of the distillation token: what the loss wants."""
        tokens = self.features(images)
        return self.head(tokens[:, 0]), self.distillation_head(tokens[:, 1])

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch classes"]:
        """The mean of both heads' logits: what the paper classifies with once training is over."""
        return torch.stack(self.both_logits(images)).mean(dim=0)


class ConvolutionalTeacher(nn.Module):
    """A small convolutional network, which knows from birth what a ViT must learn: that pixels have neighbors.

    Three stages of two 3×3 convolutions, each normalized over the batch and followed by ReLU; between the stages the
    picture is halved and the channels doubled; at the end the mean over the picture goes to the head.
    """

    def __init__(self, channels: int, classes: int, width: int = 32):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width]
        stages = [self._stage(narrow, wide) for narrow, wide in pairwise(widths)]
        # `ceil_mode` keeps the odd last row and column, which an 8×8 digit cannot spare.
        self.stages = nn.Sequential(
            stages[0], nn.MaxPool2d(2, ceil_mode=True), stages[1], nn.MaxPool2d(2, ceil_mode=True), stages[2]
        )
        self.head = nn.Linear(widths[-1], classes)

    @staticmethod
    def _stage(narrow: int, wide: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for before in (narrow, wide):
            layers += [nn.Conv2d(before, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch classes"]:
        return self.head(self.stages(images).mean(dim=(2, 3)))
