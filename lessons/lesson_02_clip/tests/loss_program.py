"""Compute both losses and their gradients on the pairs of one process; started by test_losses.py."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from lessons.lesson_02_clip.model import gathered_info_nce, ring_sigmoid_loss
from shared.distributed import join, rank

LOSSES = {"info_nce": gathered_info_nce, "sigmoid": ring_sigmoid_loss}


def own_vectors(process: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(process)
    return F.normalize(torch.randn(2, 3, 4, dtype=torch.float64, generator=generator), dim=-1).unbind()


def parameters() -> list[torch.Tensor]:
    """Return scale and bias."""
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (8.0, -2.0)]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    join()
    results = {}
    for name, loss in LOSSES.items():
        images, texts = (side.clone().requires_grad_() for side in own_vectors(rank()))
        arguments = parameters()[:1] if name == "info_nce" else parameters()
        value = loss(images, texts, *arguments)
        value.backward()
        results |= {f"{name}/loss": value.detach(), f"{name}/images": images.grad, f"{name}/texts": texts.grad}
        results |= {f"{name}/parameter {index}": parameter.grad for index, parameter in enumerate(arguments)}
    save_file(results, folder / f"{rank()}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
