"""What the language model is shown of an image: the eye's tokens from before its last block."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_01_vit.model import VisionTransformer


def image_features(
    vision: VisionTransformer,
    pixels: Float[Tensor, "images channels height width_px"],
    layers: Sequence[int] = (-2,),
    class_token: bool = False,
) -> Float[Tensor, "images tokens features"]:
    """The patches as they go into the eye's last block, in reading order (arXiv:2304.08485, section 4.1).

    The last block makes of them what CLIP compares, one vector for the whole image; before it each patch still tells of its
    own place. No last norm is applied, as none is in the published models.

    layers       which of the depth + 1 states; the tokens of several are laid side by side
    class_token  keep the tokens that stand before the patches
    """
    return chosen_tokens(vision.hidden_states(pixels), layers, 0 if class_token else vision.prefix_tokens)


def chosen_tokens(
    states: Sequence[Float[Tensor, "images tokens width"]], layers: Sequence[int], leading: int
) -> Float[Tensor, "images kept features"]:
    """Some of an eye's states, a token's vectors side by side, without the `leading` tokens that are no patches.

    states  as the first block gets them, and as each block leaves them: −1 is the last block's, −2 what goes into it
    """
    # exercise 5.3: what the eye knows before its last block
    return torch.cat([states[layer] for layer in layers], dim=-1)[:, leading:]
    # end exercise
