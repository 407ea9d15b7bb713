"""A perceptual loss: the distance of two images in the features of a frozen network (arXiv:1801.03924).

A pixel loss compares pixels one by one, so that a thin stripe counts only as much as the area that it covers. Features
of a trained network change with what the image shows. VQGAN (arXiv:2012.09841) uses LPIPS: features of a VGG
network that was trained on photographs. Here the network is the image encoder of lesson 2's CLIP, which was trained on
the toy world.

The course's judge of generated images is not used. It scores what the tokenizer decodes, so nothing may be trained to
satisfy it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder

Images = Float[Tensor, "batch 3 size size"]


def feature_distance(
    features: Float[Tensor, "batch tokens width"], expected: Float[Tensor, "batch tokens width"], eps: float = 1e-10
) -> Float[Tensor, "batch"]:
    """Return the mean over tokens of ‖f/‖f‖ − e/‖e‖‖², each vector normalized to length 1 (arXiv:1801.03924, eq. 1)."""
    first = features / (features.norm(dim=-1, keepdim=True) + eps)
    second = expected / (expected.norm(dim=-1, keepdim=True) + eps)
    return (first - second).square().sum(dim=-1).mean(dim=-1)


class PerceptualLoss(nn.Module):
    """Compare images by the hidden states of a frozen Vision Transformer: [batch, 3, size, size] → [batch].

    vision_encoder  a model whose pixels are normalized as in `data.toybox.tensors.normalize_pixels`
    layers          which hidden states are compared; 0 is the input of the first block

    Gradients reach the first images only. Raises ValueError for a layer that the encoder does not have.
    """

    def __init__(self, vision_encoder: VisionTransformer, layers: Sequence[int] = (1, 2, 3)):
        super().__init__()
        depth = vision_encoder.config.depth
        if not layers or min(layers) < 0 or max(layers) > depth:
            raise ValueError(f"layers are {list(layers)}; the vision encoder has the hidden states 0 to {depth}")
        # Plain attributes: the encoder's weights are not the tokenizer's, and are not saved with it.
        self._vision_encoder, self.layers = [vision_encoder.eval().requires_grad_(False)], tuple(layers)

    @classmethod
    def from_clip(cls, layers: Sequence[int] = (1, 2, 3)) -> "PerceptualLoss":
        """Use the image encoder of the shipped CLIP. Raises CourseError when its checkpoint is missing."""
        return cls(load_vision_encoder(), layers)

    def forward(self, images: Images, expected: Images) -> Float[Tensor, "batch"]:
        with torch.no_grad():
            targets = self.features(expected)
        distances = map(feature_distance, self.features(images), targets)
        return torch.stack(list(distances)).mean(dim=0)

    def features(self, images: Images) -> list[Float[Tensor, "batch patches width"]]:
        """Return the patches' hidden states of the compared layers; pixels lie between 0 and 1."""
        encoder = self._vision_encoder[0].to(images.device)
        states = encoder.hidden_states(255 * images / 64 - 3.25)
        return [states[layer][:, encoder.config.prefix_tokens :] for layer in self.layers]
