"""Packed images give the outputs and gradients of the same images one by one, in every position scheme and pooling."""

from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_06_any_resolution.model import (
    ImagePatches,
    NaViT,
    NaViTConfig,
    drop_tokens,
    pack,
    pad,
    sample_drop_rates,
)
from lessons.lesson_06_any_resolution.model.config import CHOICES
from lessons.lesson_06_any_resolution.model.positions import resize_grid
from shared.testing import redraw_weights

GRIDS = [(2, 7), (1, 5), (4, 1), (3, 3), (1, 1), (5, 4), (2, 2)]
SMALL = {"patch_size": 2, "channels": 3, "width": 24, "depth": 2, "heads": 3, "mlp_dim": 32, "grid_size": 8}


def images(dtype=torch.float32):
    return [ImagePatches.from_image(torch.randn(3, 2 * rows, 2 * columns, dtype=dtype), 2) for rows, columns in GRIDS]


def model_of(**changes):
    return redraw_weights(NaViT(NaViTConfig(**SMALL | changes)))


def outputs_and_gradients(model, batches, target):
    """Return the outputs of all images and the gradients of one loss on them."""
    model.zero_grad()
    outputs = torch.cat([model(batch) for batch in batches])
    (outputs * target).sum().backward()
    # A gradient of zero would agree by accident. (A constant that is added to all keys cancels in the softmax.)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(
        name.endswith(("key.bias", "key_norm.bias")) or grad.abs().max() > 1e-4 for name, grad in gradients.items()
    )
    return outputs, gradients


def assert_equal(one, other, tolerance=1e-5):
    """Gradients are compared relative to their largest value, since they are sums over all tokens."""
    torch.testing.assert_close(one[0], other[0], atol=tolerance, rtol=tolerance)
    for name, gradient in one[1].items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(gradient, other[1][name], atol=tolerance * scale, rtol=0, msg=name)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_outputs_and_gradients(positions, pooling):
    model, batch = model_of(positions=positions, pooling=pooling), images()
    target = torch.randn(len(batch), 24)
    single = outputs_and_gradients(model, [pad([image]) for image in batch], target)
    packed = pack(batch, 24)
    assert len(packed.patches) == 3 and len(packed.grids) == 7
    assert_equal(single, outputs_and_gradients(model, [packed], target))
    assert_equal(single, outputs_and_gradients(model, [pad(batch, 21)], target))
    assert_equal(single, outputs_and_gradients(model, [pack(batch, 60, "first-fit")], target))


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_with_the_same_tokens_dropped(positions):
    model, generator = model_of(positions=positions, classes=5), torch.Generator().manual_seed(0)
    rates = sample_drop_rates(len(GRIDS), 0.4, 0.2, Random(0))
    batch = [drop_tokens(image, rate, generator) for image, rate in zip(images(), rates, strict=True)]
    assert sum(map(len, batch)) < 0.8 * sum(rows * columns for rows, columns in GRIDS)
    target = torch.randn(len(batch), 5)
    single = outputs_and_gradients(model, [pad([image]) for image in batch], target)
    assert_equal(single, outputs_and_gradients(model, [pack(batch, 16)], target))


def test_in_double_precision_they_agree_to_the_last_digits():
    model, batch = model_of(positions="learned").double(), images(torch.float64)
    target = torch.randn(len(batch), 24, dtype=torch.float64)
    single = outputs_and_gradients(model, [pad([image]) for image in batch], target)
    assert_equal(single, outputs_and_gradients(model, [pack(batch, 24, "best-fit-decreasing")], target), 1e-11)


@torch.no_grad()
def test_an_image_is_independent_of_its_neighbors():
    model, batch = model_of(), images()
    before = model(pack(batch, 54))
    batch[3] = ImagePatches(batch[3].patches + 1, batch[3].coordinates, batch[3].grid)
    changed = (model(pack(batch, 54)) - before).abs().amax(dim=1)
    assert changed[3] > 1e-2 and changed[[0, 1, 2, 4, 5, 6]].max() < 1e-6


@torch.no_grad()
def test_padding_has_no_effect_whatever_it_holds():
    model, batch = model_of(positions="learned"), pack(images(), 24)
    noise = torch.where((batch.segments < 0)[..., None], 1e3 * torch.randn_like(batch.patches), batch.patches)
    noisy = type(batch)(**vars(batch) | {"patches": noise})
    assert torch.equal(model(noisy), model(batch))
    assert model(batch).isfinite().all() and batch.efficiency < 0.9


@torch.no_grad()
def test_features_hidden_states_and_their_parts():
    model, batch = model_of(positions="rotary"), pack(images(), 24)
    states = model.hidden_states(batch)
    assert len(states) == 3 and torch.equal(states[0], model.embed(batch))
    assert torch.equal(model.norm(states[-1]), model.features(batch))
    parts = batch.split(model.features(batch))
    assert [len(part) for part in parts] == [rows * columns for rows, columns in GRIDS]
    alone = pad(images()[:1])
    torch.testing.assert_close(alone.split(model.features(alone))[0], model.features(alone)[0])


def test_a_learned_grid_reads_what_interpolation_gives_for_each_image():
    """The table of a batch with several grids, some of them repeated, against each image's own grid."""
    model = model_of(positions="learned")
    batch = pack([*images(), *images()[2:4]], 30)
    expected = [resize_grid(model.positions.weight, grid) for grid in [*GRIDS, *GRIDS[2:4]]]
    for vectors, one in zip(batch.split(model.positions(batch)), expected, strict=True):
        assert torch.equal(vectors, one)


def test_patches_of_another_model_are_refused():
    batch = pad([ImagePatches.from_image(torch.randn(3, 6, 6), 3)])
    with pytest.raises(ValueError, match="patches have 27 values, expected 12: 3 channels of 2×2"):
        model_of()(batch)


def test_absolute_positions_end_with_their_table():
    long = pad([ImagePatches.from_image(torch.randn(3, 2, 18), 2)])
    with pytest.raises(ValueError, match="a patch is at index 8, but the table ends at 7"):
        model_of(positions="factorized-absolute")(long)
    assert model_of(positions="factorized-fractional")(long).shape == (1, 24)


def test_a_training_step_lowers_the_loss():
    model, batch = model_of(classes=7), pack(images(), 24)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(model(batch), torch.arange(7))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
