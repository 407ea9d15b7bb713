"""The attention function of the course: one mask algebra, one function, interchangeable backends."""

from shared.attention.dispatch import attention, attention_backward, attention_scores, attention_weights
from shared.attention.inputs import OutputGradient
from shared.attention.mask import FULL_ATTENTION, Mask, packed_segments, padded_segments

__all__ = [
    "FULL_ATTENTION",
    "Mask",
    "OutputGradient",
    "attention",
    "attention_backward",
    "attention_scores",
    "attention_weights",
    "packed_segments",
    "padded_segments",
]
