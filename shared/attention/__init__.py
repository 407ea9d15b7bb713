"""The one attention function of the course: a mask algebra in front, interchangeable backends behind."""

from shared.attention.dispatch import attention, attention_backward, attention_weights
from shared.attention.mask import EVERYTHING, Mask, segments_from_lengths, segments_of_ragged_batch

__all__ = [
    "EVERYTHING",
    "Mask",
    "attention",
    "attention_backward",
    "attention_weights",
    "segments_from_lengths",
    "segments_of_ragged_batch",
]
