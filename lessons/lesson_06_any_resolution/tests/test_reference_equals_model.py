"""With the same weights, the pure-Python NaViT and the PyTorch one give the same logits and gradients."""

from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_06_any_resolution import reference
from lessons.lesson_06_any_resolution.model import ImagePatches, NaViT, NaViTConfig, assign_rows, budget_grid, pack
from lessons.lesson_06_any_resolution.model.positions import resize_matrix
from shared.stdlib.functional import cross_entropy
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

SIZES = {"the reference's": reference.Sizes(), "odd": reference.Sizes(3, 15, 1, 3, 10, 7, 4)}
GRIDS = [(2, 3), (1, 5), (3, 1), (1, 1), (2, 2)]


def both(sizes):
    """Return both versions with the same random weights; their parameter names are equal."""
    config = NaViTConfig(
        channels=1,
        positions="factorized-absolute",
        pooling="mean",
        activation="gelu",
        qkv_bias=True,
        qk_norm=False,
        **sizes._asdict(),
    )
    model = redraw_weights(NaViT(config).double())
    plain = reference.NaViT(sizes, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model


def images(side):
    return [torch.rand(rows * side, columns * side, dtype=torch.float64) for rows, columns in GRIDS]


@pytest.mark.parametrize("row_length", [6, 9, 20])
@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_and_gradients(name, row_length):
    sizes = SIZES[name]
    plain, model = both(sizes)
    pixels, labels = images(sizes.patch_size), [1, 0, 3, 2, 3]
    rows = reference.pack([to_stdlib(image) for image in pixels], sizes.patch_size, row_length)
    batch = pack([ImagePatches.from_image(image[None], sizes.patch_size) for image in pixels], row_length)
    assert rows.image_index == batch.image_index.tolist()
    assert max_abs_difference(to_torch(rows.patches), batch.patches) == 0

    logits, expected = plain(rows, len(pixels)), model(batch)
    assert max_abs_difference(to_torch(logits), expected) < 1e-9
    cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, torch.tensor(labels)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        assert max_abs_difference(parameter.grad, gradients[name]) < 1e-8, name
        # A bias of the keys adds a constant to all scores of a query, which does not change the softmax.
        assert name.endswith("key.bias") or gradients[name].abs().max() > 1e-5, name


def test_the_resize_rules_are_one():
    random = Random(0)
    for _ in range(60):
        arguments = [random.randint(1, 2000), random.randint(1, 2000), random.randint(1, 30), random.randint(1, 500)]
        assert reference.budget_grid(*arguments) == budget_grid(*arguments)


def test_the_interpolation_weights_are_one():
    for old, new in ((6, 6), (16, 5), (5, 16), (7, 1), (1, 7)):
        assert max_abs_difference(to_torch(reference.resize_matrix(old, new)), resize_matrix(old, new)) < 1e-12


def test_the_packing_rules_are_one():
    random = Random(0)
    for _ in range(30):
        lengths = [random.randint(1, 20) for _ in range(random.randint(1, 30))]
        assert reference.first_fit_decreasing(lengths, 24) == assign_rows(lengths, 24)
