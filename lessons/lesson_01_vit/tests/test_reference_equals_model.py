"""The pure-Python and the PyTorch Vision Transformer give the same values with the same weights."""

from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_01_vit import reference
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.stdlib.functional import cross_entropy
from shared.stdlib.tensor import Tensor
from shared.testing import redraw_weights

GEOMETRIES = {
    "digits": reference.DIGITS,
    "odd": reference.Geometry("odd", 9, 3, width=15, depth=2, heads=5, mlp_dim=14, channels=2, classes=4),
}


def config_of(geometry):
    sizes = ("image_size", "patch_size", "channels", "width", "depth", "heads", "mlp_dim", "classes")
    return VisionTransformerConfig(**{size: getattr(geometry, size) for size in sizes})


def both(geometry):
    """Return both versions with the same random weights; their parameter names are equal."""
    model = VisionTransformer(config_of(geometry)).double()
    redraw_weights(model)
    plain = reference.VisionTransformer(geometry, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model


def to_torch(tensor):
    return torch.tensor(tensor.data, dtype=torch.float64).reshape(tensor.shape)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_same_weights_same_logits_maps_and_gradients(name):
    geometry = GEOMETRIES[name]
    plain, model = both(geometry)
    images = torch.rand(3, geometry.channels, geometry.image_size, geometry.image_size, dtype=torch.float64)
    labels = [1, 0, 3]

    logits, maps = plain(Tensor(images.flatten().tolist(), tuple(images.shape)))
    cross_entropy(logits, labels).backward()
    expected = model(images)
    F.cross_entropy(expected, torch.tensor(labels)).backward()

    torch.testing.assert_close(to_torch(logits), expected, atol=1e-9, rtol=0)
    for one, other in zip(maps, model.attention_maps(images), strict=True):
        torch.testing.assert_close(to_torch(one), other, atol=1e-9, rtol=0)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-8, rtol=0)
        # A bias of the keys adds a constant to all scores of a query, which does not change the softmax.
        assert name.endswith("key.bias") or gradient.abs().max() > 1e-6


@pytest.mark.parametrize("geometry", [*GEOMETRIES.values(), reference.PUBLISHED[0]], ids=lambda g: g.name)
def test_the_geometry_counts_the_parameters_of_the_model(geometry):
    with torch.device("meta"):
        model = VisionTransformer(config_of(geometry))
    assert sum(geometry.parameters().values()) == sum(parameter.numel() for parameter in model.parameters())
