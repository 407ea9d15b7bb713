"""Tensors of which each process holds a share (PyTorch's DTensor), and plain ones, through the same three functions."""

from torch import Tensor


def own_share(tensor: Tensor) -> Tensor:
    """What this process holds of `tensor`; all of a plain one."""
    return tensor.to_local() if _is_shared(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of `tensor`, from all processes together; a plain one as it is."""
    return tensor.full_tensor() if _is_shared(tensor) else tensor


def shared_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Cut `tensor`, which every process has whole, into shares as those of `like`; as it is when `like` is plain."""
    if not _is_shared(like):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate  # here, for one process alone need not wait for it

    everywhere = [Replicate()] * like.device_mesh.ndim
    replicated = DTensor.from_local(tensor.to(like.device), like.device_mesh, everywhere, run_check=False)
    return replicated.redistribute(placements=like.placements)


def _is_shared(tensor: Tensor) -> bool:
    return hasattr(tensor, "to_local")
