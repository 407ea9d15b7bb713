"""Operations that treat sharded tensors (PyTorch's DTensor) and plain tensors alike."""

from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return the part of `tensor` that this process holds; a plain tensor as it is."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of `tensor`, gathered from all processes; a plain tensor as it is."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shard `tensor`, which every process holds in full, like `like`; return it as it is when `like` is plain."""
    if not _is_sharded(like):
        return tensor
    # Imported here because the import takes a second, which a single process does not need.
    from torch.distributed.tensor import distribute_tensor

    # Without a source rank, each process cuts its own copy and nothing is sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def _is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    return hasattr(tensor, "to_local")
