"""The shipped CLIP of the toy world as a frozen vision encoder for later lessons."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from data.toybox.tensors import normalize_pixels
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.dual_encoder import CLIP
from shared.course.checkpoint import checkpoint_folder


def load_vision_encoder() -> VisionTransformer:
    """Load the image encoder of the shipped CLIP, frozen. Raises CourseError when its checkpoint is missing."""
    folder = checkpoint_folder("lesson_02_clip")
    return CLIP.from_pretrained(folder).image_encoder.eval().requires_grad_(False)


@torch.no_grad()
def vision_features(
    vision_encoder: VisionTransformer, pixels: UInt8[Tensor, "images 3 size size"], device: str
) -> Float[Tensor, "images patches width"]:
    """Encode images once: the hidden states of the patches that enter the last block, each normalized to one scale.

    The last block computes the pooled vector that CLIP compares, so its output is not used (arXiv:2301.12597,
    section 3.4).
    """
    vision_encoder = vision_encoder.to(device)
    prefix = vision_encoder.config.prefix_tokens
    states = [
        vision_encoder.hidden_states(normalize_pixels(batch.to(device)))[-2][:, prefix:] for batch in pixels.split(256)
    ]
    return nn.functional.layer_norm(torch.cat(states), (vision_encoder.config.width,))
