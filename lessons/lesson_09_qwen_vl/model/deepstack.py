"""DeepStack: features of several depths of the vision encoder enter several layers of the language model.

The first DeepStack (arXiv:2406.04334) adds tokens of high-resolution tiles to the hidden states. Qwen3-VL
(arXiv:2511.21631, section 2) adds features of lower blocks of its vision encoder: after layer i of the language model,
the i-th of them is added to the hidden states at the visual tokens. The sequence does not become longer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lessons.lesson_05_llava.model import splice_images


def spread_over_text(
    features: Sequence[Float[Tensor, "visual_tokens width"]], is_visual: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "layers batch tokens width"]:
    """Put each layer's features at the visual positions, in reading order; text positions get zeros.

    Raises ValueError when a layer has no feature for each visual position.
    """
    return torch.stack(
        [splice_images(layer.new_zeros(*is_visual.shape, layer.shape[-1]), is_visual, layer) for layer in features]
    )


def add_features(
    hidden_states: Float[Tensor, "batch tokens width"],
    features: Float[Tensor, "layers batch tokens width"],
    layer: int,
) -> Float[Tensor, "batch tokens width"]:
    """Add the visual features of one layer of the language model to its output, if there are any.

    features  of the first layers, zero at text tokens
    layer     of the language model, counted from 0
    """
    # exercise 9.9: DeepStack
    if layer >= len(features):
        return hidden_states
    return hidden_states + features[layer].to(hidden_states.dtype)
    # end exercise
