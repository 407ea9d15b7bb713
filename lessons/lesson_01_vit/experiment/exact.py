"""Identities that must hold up to rounding before anything is trained."""

from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_01_vit import reference
from lessons.lesson_01_vit.experiment.data import load_images, shuffle_patches, small_config
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.course.context import RunContext
from shared.stdlib import digits
from shared.stdlib.functional import cross_entropy
from shared.torch_conversion import max_abs_difference, to_torch


def check_identities(context: RunContext) -> dict:
    """Return the largest absolute difference of each identity."""
    torch.manual_seed(context.seed)
    images = load_images(context.data)
    batch = images.standardized_test[:16].to(context.device)
    return {
        "convolution_difference": convolution_difference(batch, small_config(images)),
        **reference_differences(context.seed),
        "order_difference_without_positions": order_difference(
            batch, small_config(images, positions="none"), context.seed
        ),
        "order_difference_with_positions": order_difference(batch, small_config(images), context.seed),
    }


@torch.no_grad()
def convolution_difference(images: Tensor, config: VisionTransformerConfig) -> float:
    """Compare the patch embedding with a convolution whose kernel and stride are the patch size."""
    embedding = VisionTransformer(config).to(images.device).patch_embedding
    size = config.patch_size
    # The linear layer's input is in row-major order, channel last; a kernel has its channels first.
    kernel = embedding.project.weight.unflatten(1, (size, size, config.channels)).permute(0, 3, 1, 2)
    convolved = F.conv2d(images, kernel, embedding.project.bias, stride=size).flatten(2).transpose(1, 2)
    return (embedding(images) - convolved).abs().max().item()


@torch.no_grad()
def order_difference(images: Tensor, config: VisionTransformerConfig, seed: int) -> float:
    """Compare the logits of an untrained model for images and for the same images with shuffled patches."""
    model = VisionTransformer(config).to(images.device)
    torch.nn.init.normal_(model.head.weight)
    generator = torch.Generator(images.device).manual_seed(seed)
    return (model(images) - model(shuffle_patches(images, config.patch_size, generator))).abs().max().item()


def reference_differences(seed: int) -> dict[str, float]:
    """Compare logits and gradients of the pure-Python and the PyTorch model with the same weights, in float64."""
    geometry = reference.DIGITS
    sizes = ("image_size", "patch_size", "channels", "width", "depth", "heads", "mlp_dim", "classes")
    model = VisionTransformer(VisionTransformerConfig(**{size: getattr(geometry, size) for size in sizes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    plain = reference.VisionTransformer(geometry, Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})

    subset = digits.load().subset(list(range(8)))
    pixels = reference.as_tensor(subset.images)
    plain_logits, _ = plain(pixels)
    cross_entropy(plain_logits, subset.labels).backward()
    logits = model(to_torch(pixels))
    F.cross_entropy(logits, torch.tensor(subset.labels)).backward()

    gradients = plain.parameters()
    return {
        "reference_difference": max_abs_difference(to_torch(plain_logits), logits),
        "reference_gradient_difference": max(
            max_abs_difference(gradients[name].grad, parameter.grad) for name, parameter in model.named_parameters()
        ),
    }
