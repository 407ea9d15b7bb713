"""The one attention function of the course: a mask algebra in front, interchangeable backends behind."""

from shared.attention.dispatch import attention, attention_backward, attention_weights
from shared.attention.mask import FULL_ATTENTION, Mask, packed_segments, padded_segments

__all__ = [
    "FULL_ATTENTION",
    "Mask",
    "attention",
    "attention_backward",
    "attention_weights",
    "packed_segments",
    "padded_segments",
]
