"""The pure-Python Flamingo and the PyTorch one are the same mathematics: same weights, same numbers."""

from random import Random

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_04_flamingo import reference
from lessons.lesson_04_flamingo.model import (
    Flamingo,
    FlamingoConfig,
    ResamplerConfig,
    latest_image,
    sees,
    text_loss,
    words_of,
)
from shared.stdlib.tensor import Tensor
from shared.transformer import DecoderConfig

ROWS, LENGTHS = reference.filled([reference.document(labels) for labels in ([3, 1], [7, 8], [0, 6])])


def both(width, layers, heads, mlp_dim, media_width, latents, depth, resampler_heads, head_dim):
    """The same random weights in both; they are read out of the PyTorch model by the reference's own names."""
    config = FlamingoConfig(
        ResamplerConfig(media_width, latents, depth, resampler_heads, head_dim, qk_norm=False), every=1, qk_norm=False
    )
    sizes = DecoderConfig(reference.VOCABULARY, width, layers, heads, heads, mlp_dim, rotary_base=10_000.0)
    model = Flamingo(config, torch.nn.Identity(), LanguageModel(sizes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (0.5 if parameter.ndim == 1 else 0.0))
    random = Random(0)
    plain = reference.Flamingo(
        reference.LanguageModel(width, layers, heads, mlp_dim, random),
        reference.PerceiverResampler(media_width, latents, depth, resampler_heads, head_dim, random),
        [reference.GatedCrossAttention(width, heads, mlp_dim, media_width, random) for _ in range(layers)],
    )
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model, torch.randn(len(ROWS) * 2, 5, media_width, dtype=torch.float64)


SIZES = {"the reference's": (16, 2, 2, 24, 22, 3, 1, 2, 8), "odd": (12, 3, 3, 14, 10, 2, 2, 3, 5)}


def to_torch(tensor):
    return torch.tensor(tensor.data, dtype=torch.float64).reshape(tensor.shape)


def as_stdlib(tensor):
    return Tensor(tensor.flatten().tolist(), tuple(tensor.shape))


@pytest.mark.parametrize("frozen", [False, True], ids=["all learns", "language frozen"])
@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_loss_and_gradients(name, frozen):
    plain, model, features = both(*SIZES[name])
    if frozen:
        reference.freeze(plain.language)
        model.language.requires_grad_(False)
    logits = plain(ROWS, as_stdlib(features))
    loss = reference.loss_of(logits, ROWS, LENGTHS)
    loss.backward()

    tokens = torch.tensor(ROWS)
    segments = torch.where(torch.arange(tokens.shape[1]) < torch.tensor(LENGTHS)[:, None], 0, -1)
    # Nothing that is filled up is asked for, but the reference lets it look on: so do we here.
    looks = latest_image(tokens, torch.zeros_like(tokens), reference.IMAGE)
    media = model.media(features.unflatten(0, (len(ROWS), 2)))
    expected = model(tokens, media, looks)
    # The angles of rotary positions are taken in float32 there and in float64 here.
    torch.testing.assert_close(to_torch(logits), expected, atol=1e-7, rtol=0)
    there = text_loss(expected, tokens, words_of(tokens, segments, reference.IMAGE))
    there.backward()
    torch.testing.assert_close(to_torch(loss), there.detach(), atol=1e-7, rtol=0)

    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == plain.parameters().keys()
    assert frozen == (not any(name.startswith("language.") for name in gradients))
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-7, rtol=0)
        assert gradient.abs().max() > 1e-5, name


def test_the_latents_look_alike():
    plain, model, features = both(*SIZES["odd"])
    _, maps = plain.resampler(as_stdlib(features))
    expected = model.resampler.attention_maps(features)
    assert len(maps) == len(expected) == 2
    for here, there in zip(maps, expected, strict=True):
        torch.testing.assert_close(to_torch(here), there, atol=1e-9, rtol=0)


def test_the_latest_image_and_its_mask_are_the_same():
    tokens = torch.tensor(ROWS)
    looks = latest_image(tokens, torch.zeros_like(tokens), reference.IMAGE)
    plain = [reference.latest_images(row) for row in ROWS]
    assert looks.tolist() == plain
    assert torch.equal(to_torch(reference.media_mask(plain, 2, 3))[:, 0] == 0, sees(looks, 2, 3))
