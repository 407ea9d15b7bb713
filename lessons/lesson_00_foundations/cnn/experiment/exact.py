"""Exact checks of the part `cnn`, before any training: three convolutions agree, and convolution is equivariant."""

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn import reference
from lessons.lesson_00_foundations.cnn.experiment.data import DIGIT, load_digits, place_on_canvas
from lessons.lesson_00_foundations.cnn.model import ResNet, conv2d, conv2d_direct
from shared.course.context import RunContext
from shared.stdlib.functional import cross_entropy
from shared.stdlib.tensor import Tensor as PlainTensor
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

CASES = [(1, 0), (1, 1), (2, 1), (3, 2)]
"""(stride, padding) of the convolutions compared."""


def check_convolution(context: RunContext) -> dict:
    """Return the largest absolute differences between computations that must agree."""
    torch.manual_seed(context.seed)
    return {
        "direct_difference": convolution_difference(with_gradients(conv2d_direct)),
        "im2col_difference": convolution_difference(with_gradients(conv2d)),
        "reference_difference": convolution_difference(reference_with_gradients),
        "equivariance_difference": equivariance_difference(context.seed),
        **network_differences(context.seed),
    }


def convolution_difference(convolution: Callable) -> float:
    """Return the largest difference of a convolution from PyTorch's, over several strides and paddings.

    `convolution` returns values and gradients, as `with_gradients` describes.
    """
    inputs = torch.randn(2, 3, 7, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    inputs = [tensor.double().requires_grad_() for tensor in inputs]
    largest = 0.0
    for stride, padding in CASES:
        upstream = torch.randn_like(F.conv2d(*inputs, stride, padding))
        expected = with_gradients(F.conv2d)(*inputs, stride, padding, upstream)
        result = convolution(*inputs, stride, padding, upstream)
        largest = max(largest, *(max_abs_difference(one, other) for one, other in zip(result, expected, strict=True)))
    return largest


def with_gradients(convolve: Callable) -> Callable:
    """Make a convolution of PyTorch tensors return its values and its gradients of images, kernel and bias."""

    def convolution(images, kernel, bias, stride, padding, upstream) -> tuple[Tensor, ...]:
        values = convolve(images, kernel, bias, stride, padding)
        return values, *torch.autograd.grad(values, (images, kernel, bias), upstream)

    return convolution


def reference_with_gradients(
    images: Tensor, kernel: Tensor, bias: Tensor, stride: int, padding: int, upstream: Tensor
) -> tuple[Tensor, ...]:
    """Convolve in pure Python by the definition; return values and gradients of images, kernel and bias."""
    inputs = [to_stdlib(tensor, requires_grad=True) for tensor in (images, kernel, bias)]
    result = reference.conv2d_direct(*inputs, stride, padding)
    (result * to_stdlib(upstream)).sum().backward()
    gradients = [PlainTensor(tensor.grad, tensor.shape) for tensor in inputs]
    return tuple(to_torch(tensor) for tensor in (result, *gradients))


@torch.no_grad()
def equivariance_difference(seed: int) -> float:
    """Compare the convolution of a shifted digit with the shifted convolution of the digit, away from the border."""
    generator = torch.Generator().manual_seed(seed)
    digits = load_digits().test[:8].double()
    kernel = torch.randn(5, 1, 3, 3, dtype=torch.float64, generator=generator)
    rows, columns, side = 5, 3, 24
    output = conv2d(place_on_canvas(digits, *_starts(digits, 6, 6), side), kernel, padding=1)
    shifted_output = conv2d(place_on_canvas(digits, *_starts(digits, 6 + rows, 6 + columns), side), kernel, padding=1)
    # The kernel also responds in a frame of one pixel around the digit.
    region = slice(5, 7 + DIGIT), slice(5, 7 + DIGIT)
    shifted_region = slice(5 + rows, 7 + DIGIT + rows), slice(5 + columns, 7 + DIGIT + columns)
    return max_abs_difference(output[..., *region], shifted_output[..., *shifted_region])


def _starts(images: Tensor, row: int, column: int) -> tuple[Tensor, Tensor]:
    return torch.full((len(images),), row), torch.full((len(images),), column)


def network_differences(seed: int) -> dict[str, float]:
    """Compare logits and gradients of the pure-Python and the PyTorch network with equal weights, in float64."""
    model = ResNet(1, 10, widths=(4, 6), blocks=1, pool=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    plain_model = reference.ResNet(1, 10, (4, 6), 1, 2, Random(seed))
    plain_model.load_parameters({name: weight.flatten().tolist() for name, weight in model.named_parameters()})

    data = load_digits()
    images, labels = data.test[:4].double(), data.test_labels[:4]
    plain_logits = plain_model(to_stdlib(images))
    cross_entropy(plain_logits, labels.tolist()).backward()
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    plain_weights = plain_model.parameters()
    return {
        "network_difference": max_abs_difference(to_torch(plain_logits), logits),
        "network_gradient_difference": max(
            max_abs_difference(plain_weights[name].grad, weight.grad) for name, weight in model.named_parameters()
        ),
    }
