"""What must hold to rounding, before anything is trained: three ways to one convolution, and what it does to a shifted picture."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn import reference
from lessons.lesson_00_foundations.cnn.experiment import convolution
from lessons.lesson_00_foundations.cnn.experiment.shifted import DIGIT, place, read_digits
from lessons.lesson_00_foundations.cnn.model import ResNet
from shared.stdlib.functional import cross_entropy
from shared.stdlib.tensor import Tensor as PlainTensor
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

CASES = [(1, 0), (1, 1), (2, 1), (3, 2)]
"""(stride, padding) of the convolutions compared."""


def check_convolution(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """Largest absolute differences between things that the part says are the same (data, folder and resume are not used)."""
    torch.manual_seed(seed)
    return {
        "direct_difference": convolution_difference(in_torch(convolution.conv2d_direct)),
        "im2col_difference": convolution_difference(in_torch(convolution.conv2d)),
        "reference_difference": convolution_difference(in_reference),
        "equivariance_difference": equivariance_difference(seed),
        **network_differences(seed),
    }


def convolution_difference(answer: Callable) -> float:
    """A convolution against PyTorch's: values, and gradients of image, kernel and bias, over several strides and paddings."""
    inputs = torch.randn(2, 3, 7, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    inputs = [tensor.double().requires_grad_() for tensor in inputs]
    furthest = 0.0
    for stride, padding in CASES:
        upstream = torch.randn_like(F.conv2d(*inputs, stride, padding))
        expected = in_torch(F.conv2d)(*inputs, stride, padding, upstream)
        found = answer(*inputs, stride, padding, upstream)
        furthest = max(furthest, *(max_abs_difference(one, other) for one, other in zip(found, expected, strict=True)))
    return furthest


def in_torch(convolve: Callable) -> Callable:
    """A convolution of PyTorch tensors as a function to its values and its gradients of image, kernel and bias."""

    def answer(images, kernel, bias, stride, padding, upstream) -> tuple[Tensor, ...]:
        values = convolve(images, kernel, bias, stride, padding)
        return values, *torch.autograd.grad(values, (images, kernel, bias), upstream)

    return answer


def in_reference(
    images: Tensor, kernel: Tensor, bias: Tensor, stride: int, padding: int, upstream: Tensor
) -> tuple[Tensor, ...]:
    """The pure-Python convolution by its definition: its values, and its gradients of image, kernel and bias."""
    inputs = [to_stdlib(tensor, requires_grad=True) for tensor in (images, kernel, bias)]
    result = reference.conv2d_direct(*inputs, stride, padding)
    (result * to_stdlib(upstream)).sum().backward()
    gradients = [PlainTensor(tensor.grad, tensor.shape) for tensor in inputs]
    return tuple(to_torch(tensor) for tensor in (result, *gradients))


@torch.no_grad()
def equivariance_difference(seed: int) -> float:
    """Shift a digit, then convolve; convolve, then shift: the largest difference where the shifted frame does not cut."""
    generator = torch.Generator().manual_seed(seed)
    digit = read_digits().test[:8].double()
    kernel = torch.randn(5, 1, 3, 3, dtype=torch.float64, generator=generator)
    down, right, side = 5, 3, 24
    here = convolution.conv2d(place(digit, *_starts(digit, 6, 6), side), kernel, padding=1)
    there = convolution.conv2d(place(digit, *_starts(digit, 6 + down, 6 + right), side), kernel, padding=1)
    # Around the digit there is a frame of one pixel that the kernel still answers to.
    inside = slice(5, 7 + DIGIT), slice(5, 7 + DIGIT)
    moved = slice(5 + down, 7 + DIGIT + down), slice(5 + right, 7 + DIGIT + right)
    return max_abs_difference(here[..., inside[0], inside[1]], there[..., moved[0], moved[1]])


def _starts(images: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
    return torch.full((len(images),), row), torch.full((len(images),), column)


def network_differences(seed: int) -> dict[str, float]:
    """Logits and gradients of the pure-Python residual network against the PyTorch one, with the same weights, in float64."""
    model = ResNet(1, 10, widths=(4, 6), blocks=1, pool=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    plain = reference.ResNet(1, 10, (4, 6), 1, 2, Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})

    data = read_digits()
    images, labels = data.test[:4].double(), data.test_labels[:4]
    plain_logits = plain(to_stdlib(images))
    cross_entropy(plain_logits, labels.tolist()).backward()
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    gradients = plain.parameters()
    return {
        "network_difference": max_abs_difference(to_torch(plain_logits), logits),
        "network_gradient_difference": max(
            max_abs_difference(gradients[name].grad, parameter.grad) for name, parameter in model.named_parameters()
        ),
    }
