"""The pure-Python Flamingo and the PyTorch one are equal: same weights, same logits, loss and gradients."""

from random import Random

import pytest
import torch

from lessons.lesson_04_flamingo import reference
from lessons.lesson_04_flamingo.experiment.evaluate import build_reference_sized
from lessons.lesson_04_flamingo.model import (
    cross_attention_matrix,
    latest_image_index,
    text_loss,
    text_token_mask,
)
from shared.testing import redraw_weights
from shared.torch_conversion import to_stdlib, to_torch

ROWS, LENGTHS = reference.pad([reference.document(labels) for labels in ([3, 1], [7, 8], [0, 6])])
SIZES = {
    "the reference's": reference.Sizes(16, 2, 2, 24, 22, 3, 1, 2, 8),
    "odd": reference.Sizes(12, 3, 3, 14, 10, 2, 2, 3, 5),
}


def both(sizes):
    """Return both models with the same random weights, and features; parameter names are the same in both."""
    model = build_reference_sized(sizes)
    redraw_weights(model)
    plain = reference.build_flamingo(reference.build_language_model(sizes, Random(0)), sizes, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model, torch.randn(len(ROWS) * 2, 5, sizes.visual_width, dtype=torch.float64)


@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "language model frozen"])
@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_loss_and_gradients(name, frozen):
    plain, model, features = both(SIZES[name])
    if frozen:
        reference.freeze(plain.language_model)
        model.language_model.requires_grad_(False)
    logits = plain(ROWS, to_stdlib(features))
    loss = reference.text_loss(logits, ROWS, LENGTHS)
    loss.backward()

    token_ids = torch.tensor(ROWS)
    segments = torch.where(torch.arange(token_ids.shape[1]) < torch.tensor(LENGTHS)[:, None], 0, -1)
    # The reference has no segments: its padding attends like text, and only the loss leaves it out.
    image_index = latest_image_index(token_ids, torch.zeros_like(token_ids), reference.IMAGE)
    visual_tokens = model.resample(features.unflatten(0, (len(ROWS), 2)))
    expected = model(token_ids, visual_tokens, image_index)
    # Rotary angles are float32 in PyTorch and float64 in Python.
    torch.testing.assert_close(to_torch(logits), expected, atol=1e-7, rtol=0)
    expected_loss = text_loss(expected, token_ids, text_token_mask(token_ids, segments, reference.IMAGE))
    expected_loss.backward()
    torch.testing.assert_close(to_torch(loss), expected_loss.detach(), atol=1e-7, rtol=0)

    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == plain.parameters().keys()
    assert frozen == (not any(name.startswith("language_model.") for name in gradients))
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-7, rtol=0)
        assert gradient.abs().max() > 1e-5, name


def test_same_attention_maps_of_the_resampler():
    plain, model, features = both(SIZES["odd"])
    maps = plain.resampler.attention_maps(to_stdlib(features))
    expected = model.resampler.attention_maps(features)
    assert len(maps) == len(expected) == 2
    for actual, expected_map in zip(maps, expected, strict=True):
        torch.testing.assert_close(to_torch(actual), expected_map, atol=1e-9, rtol=0)


def test_same_image_index_and_cross_attention_mask():
    token_ids = torch.tensor(ROWS)
    image_index = latest_image_index(token_ids, torch.zeros_like(token_ids), reference.IMAGE)
    plain = [reference.latest_image_index(row) for row in ROWS]
    assert image_index.tolist() == plain
    mask = to_torch(reference.cross_attention_mask(plain, 2, 3))[:, 0] == 0
    assert torch.equal(mask, cross_attention_matrix(image_index, 2, 3))
