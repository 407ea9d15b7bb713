"""What each process of test_collectives.py runs: all collectives on its own tensors, forward and backward."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from shared.distributed import (
    all_gather_with_gradients,
    all_reduce_mean,
    is_main,
    join,
    rank,
    ring_exchange,
    world_size,
)


def input_of(process: int) -> torch.Tensor:
    return torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(process))


def loss_of(values: torch.Tensor, process: int) -> torch.Tensor:
    """A nonlinear loss that differs between the processes."""
    weights = torch.randn(values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(100 + process))
    return (weights * values.sin()).sum()


COLLECTIVES = {
    "gather": all_gather_with_gradients,
    "next": ring_exchange,
    "second next": lambda x: ring_exchange(x, 2),
    "previous": lambda x: ring_exchange(x, -1),
    "mean": all_reduce_mean,
    # Non-contiguous input, and collectives in sequence.
    "chain": lambda x: all_reduce_mean(ring_exchange(all_gather_with_gradients(x.T))),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    join()
    results = {"place": torch.tensor([rank(), world_size(), int(is_main())])}
    for name, collective in COLLECTIVES.items():
        x = input_of(rank()).requires_grad_()
        values = collective(x)
        loss_of(values, rank()).backward()
        results |= {f"{name}/values": values.detach().clone(), f"{name}/gradient": x.grad.contiguous()}
    counts = torch.tensor([rank()])
    results["integers"] = all_gather_with_gradients(counts)
    save_file(results, folder / f"{rank()}.safetensors")
