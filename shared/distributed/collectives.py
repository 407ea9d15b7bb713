"""Tensors that travel between processes, and gradients that travel back.

Each process computes a loss L_p of its own. Backward through a collective, a tensor's gradient is that of the *sum* of
all processes' losses: whatever any process made of my tensor comes home to me. Data parallel training then averages the
weights' gradients over processes, so that the sum becomes the mean of the L_p. All three are the identity for one process.

Every process must call them in the same order and with tensors of equal shape and type: a process that stays away keeps
the others waiting until the group's timeout.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed
from torch.autograd import Function

from shared.distributed.processes import rank, world_size


def all_gather_with_gradients(x: Shaped[Tensor, "rows *rest"]) -> Shaped[Tensor, "all_rows *rest"]:
    """Every process's rows, one below the other in the order of ranks.

    A contrastive loss needs it (arXiv:2103.00020, figure 3): each image is compared with the texts of *all* processes,
    and each text learns from the images of all. `torch.distributed.all_gather` gives the values without the gradients.
    """
    return x if world_size() == 1 else _AllGather.apply(x)


def ring_exchange(x: Shaped[Tensor, "*shape"], steps: int = 1) -> Shaped[Tensor, "*shape"]:
    """Give `x` to the process `steps` further round the ring of ranks; return what came from as far behind.

    After world_size − 1 exchanges of what came, each process has seen all, one at a time and never all in memory:
    what ring attention (arXiv:2310.01889) and SigLIP's chunked loss (arXiv:2303.15343, section 3.3) are built on.
    """
    return x if steps % world_size() == 0 else _RingExchange.apply(x, steps)


def all_reduce_mean(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean of `x` over the processes, the same on each."""
    return x if world_size() == 1 else _AllReduceMean.apply(x)


def gather_values(value: Any, group: distributed.ProcessGroup | None = None) -> list[Any]:
    """Every process's `value`, a plain Python one such as a dictionary of numbers, in the order of ranks.

    `group` is another group of the same processes, whose traffic does not mix with the usual one's.
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
        # Each process holds a gradient for everyone's rows. Summed over processes, mine are among them.
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _RingExchange(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        ctx.steps = steps
        return _send_round(x, steps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _send_round(gradient, -ctx.steps), None  # what I gave away is judged where it went


class _AllReduceMean(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _mean(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)  # d mean / d x is 1 / world_size in every process's loss


def _send_round(x: Tensor, steps: int) -> Tensor:
    given, received = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    to, source = (rank() + steps) % world_size(), (rank() - steps) % world_size()
    # Both at once: were each to send first and receive afterwards, all might wait for each other for ever.
    both = [distributed.P2POp(distributed.isend, given, to), distributed.P2POp(distributed.irecv, received, source)]
    for work in distributed.batch_isend_irecv(both):
        work.wait()
    return received


def _mean(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    distributed.all_reduce(total)
    return total / world_size()
