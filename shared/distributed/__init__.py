"""The processes that train one model together, and collectives with gradients between them."""

from shared.distributed.collectives import all_gather_with_gradients, all_reduce_mean, gather_values, ring_exchange
from shared.distributed.processes import is_main, join, leave, rank, world_size

__all__ = [
    "all_gather_with_gradients",
    "all_reduce_mean",
    "gather_values",
    "is_main",
    "join",
    "leave",
    "rank",
    "ring_exchange",
    "world_size",
]
