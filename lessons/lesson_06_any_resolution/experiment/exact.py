"""Identities that hold up to rounding: packed against one by one, no leak between images, reference against PyTorch."""

from random import Random

import torch
from torch import Tensor, nn

from lessons.lesson_06_any_resolution import reference
from lessons.lesson_06_any_resolution.experiment.data import PageSource
from lessons.lesson_06_any_resolution.model import ImagePatches, NaViT, NaViTConfig, PatchBatch, pack, pad
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

SIZES = reference.Sizes()
GRIDS = [(2, 3), (1, 5), (3, 1), (1, 1), (2, 2), (4, 2)]
BUDGET, ROW_LENGTH = 64, 256


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return the largest absolute differences between quantities that must be equal; only the seed is used."""
    torch.manual_seed(context.seed)
    images = page_images(context.seed)
    model = random_weights(NaViT(NaViTConfig(8, width=48, depth=2, heads=3, mlp_dim=96, pooling="mean")))
    target = torch.randn(len(images), 48) / len(images)
    packed, packed_gradients = outputs_and_gradients(model, [pack(images, ROW_LENGTH)], target)
    single, single_gradients = outputs_and_gradients(model, [pad([image]) for image in images], target)
    gradients = zip(packed_gradients, single_gradients, strict=True)
    return {
        "output_difference": max_abs_difference(packed, single),
        "gradient_difference": max(max_abs_difference(one, other) for one, other in gradients),
        "leak": leaked_gradient(model, pack(images, ROW_LENGTH)),
        "reference_difference": reference_difference(context.seed),
    }


def page_images(seed: int) -> list[ImagePatches]:
    """Return 12 receipts and charts at their own aspect ratios."""
    batch = PageSource("validation", seed, ("receipt", "chart"), "native", (BUDGET,), batch_size=12)(0).patches
    parts = zip(batch.split(batch.patches), batch.split(batch.coordinates.float()), batch.grids.tolist(), strict=True)
    return [ImagePatches(patches, places.long(), (grid[0], grid[1])) for patches, places, grid in parts]


def random_weights(model: nn.Module) -> nn.Module:
    """Draw every weight anew, so that no bias is zero and no gain is one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0.0, 0.1)
    return model


def outputs_and_gradients(model: nn.Module, batches: list[PatchBatch], target: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs of all images, and the gradient of every weight for the loss ⟨outputs, target⟩."""
    outputs = torch.cat([model(batch) for batch in batches])
    return outputs, list(torch.autograd.grad((outputs * target).sum(), list(model.parameters())))


def leaked_gradient(model: nn.Module, batch: PatchBatch) -> float:
    """Return the largest gradient of the first image's output with respect to a pixel of any other image."""
    pixels = batch.patches.clone().requires_grad_()
    outputs = model(PatchBatch(**vars(batch) | {"patches": pixels}))
    (gradient,) = torch.autograd.grad(outputs[0].square().sum(), pixels)
    if gradient[batch.image_index == 0].abs().max() == 0:
        raise AssertionError("the output does not depend on its own image")
    return gradient[batch.image_index != 0].abs().max().item()


def reference_difference(seed: int) -> float:
    """Return the largest difference between logits of the pure-Python and the PyTorch NaViT with equal weights."""
    config = NaViTConfig(
        channels=1,
        positions="factorized-absolute",
        pooling="mean",
        activation="gelu",
        qkv_bias=True,
        qk_norm=False,
        **SIZES._asdict(),
    )
    model = random_weights(NaViT(config).double())
    plain = reference.NaViT(SIZES, Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    side = SIZES.patch_size
    pixels = [torch.rand(rows * side, columns * side, dtype=torch.float64) for rows, columns in GRIDS]
    rows = reference.pack([to_stdlib(image) for image in pixels], side, reference.ROW_LENGTH)
    batch = pack([ImagePatches.from_image(image[None], side) for image in pixels], reference.ROW_LENGTH)
    return max_abs_difference(to_torch(plain(rows, len(pixels))), model(batch))
