"""Collectives that send tensors between processes, and gradients back.

Each process computes its own loss L_p. The gradient that arrives through a collective is that of the *sum* of all
processes' losses with respect to this process's tensor. Data-parallel training then averages the weights' gradients
over the processes, so that the sum becomes the mean of the L_p. For a single process all three return their input.

Every process must call them in the same order, with tensors of equal shape and type. A process that does not keeps the
others waiting until the group's timeout.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed
from torch.autograd import Function

from shared.distributed.processes import rank, world_size


def all_gather_with_gradients(x: Shaped[Tensor, "rows *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
    """Return the rows of every process, concatenated in the order of ranks.

    A contrastive loss needs this (arXiv:2103.00020, figure 3): each image is compared with the texts of *all*
    processes, and each text gets gradients from all images. `torch.distributed.all_gather` has no gradients.
    """
    return x if world_size() == 1 else _AllGather.apply(x)


def ring_exchange(x: Shaped[Tensor, "*shape"], steps: int = 1) -> Shaped[Tensor, "*shape"]:
    """Send `x` to the process `steps` ranks further around the ring; return what comes from `steps` ranks behind.

    After world_size − 1 exchanges, each process has received the tensors of all others, one at a time. Ring attention
    (arXiv:2310.01889) and SigLIP's chunked loss (arXiv:2303.15343, section 3.3) use this to save memory.
    """
    return x if steps % world_size() == 0 else _RingExchange.apply(x, steps)


def all_reduce_mean(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the mean of `x` over the processes, which is the same in each."""
    return x if world_size() == 1 else _AllReduceMean.apply(x)


def gather_values(value: Any, group: distributed.ProcessGroup | None = None) -> list[Any]:
    """Return every process's `value`, a plain Python object such as a dictionary of numbers, in the order of ranks.

    `group` is another group of the same processes, for communication apart from the default group's.
    """
    values = [value] * world_size()
    if len(values) > 1:
        distributed.all_gather_object(values, value, group)
    return values


class _AllGather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        pieces = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(pieces, x.contiguous())
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each process holds a gradient for all rows. After summation, this process takes those of its own rows.
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _RingExchange(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        ctx.steps = steps
        return _send_around_ring(x, steps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _send_around_ring(gradient, -ctx.steps), None  # gradients return to where the tensor came from


class _AllReduceMean(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)  # d mean / d x is 1 / world_size in every process's loss


def _send_around_ring(x: Tensor, steps: int) -> Tensor:
    sent, received = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    target, source = (rank() + steps) % world_size(), (rank() - steps) % world_size()
    # Both at once: if every process first sent and then received, all might wait for each other forever.
    both = [distributed.P2POp(distributed.isend, sent, target), distributed.P2POp(distributed.irecv, received, source)]
    for work in distributed.batch_isend_irecv(both):
        work.wait()
    return received


def _mean(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    distributed.all_reduce(total)
    return total / world_size()
