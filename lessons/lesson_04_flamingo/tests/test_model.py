"""Flamingo's gates, masks, resampler, documents and generation, and which parameters training changes."""

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import clip_vision_config
from lessons.lesson_04_flamingo.model import (
    Flamingo,
    FlamingoConfig,
    PerceiverResampler,
    ResamplerConfig,
    cross_attention_mask,
    cross_attention_matrix,
    gated_residual,
    latest_image_index,
    text_loss,
    text_token_mask,
    training_stage,
)
from shared.errors import CourseError
from shared.pretrained.digest import weights_digest
from shared.training import TrainingConfig, train
from shared.transformer import DecoderConfig, Sampling

VOCAB_SIZE, IMAGE = 31, 30
RESAMPLER = ResamplerConfig(width=20, latents=3, depth=2, heads=2, head_dim=7)


def flamingo(gates="vector", *, interval=2, redraw=True):
    language_model = LanguageModel(DecoderConfig(VOCAB_SIZE, 24, 4, 4, 2, 28))
    vision_encoder = VisionTransformer(
        clip_vision_config(image_size=12, patch_size=3, width=20, depth=2, heads=5, mlp_dim=28)
    )
    model = Flamingo(FlamingoConfig(RESAMPLER, interval, gates), vision_encoder, language_model).eval()
    if redraw and gates != "none":
        for layer in model.cross_attention_layers:
            for gate in (layer.attention_gate, layer.mlp_gate):
                torch.nn.init.normal_(gate.data, std=1.0)
    return model


def rows(*documents):
    """Return rows of 9 tokens with images at some places, and the index of each token's image."""
    tokens = torch.randint(0, IMAGE, (len(documents), 9))
    for row, places in enumerate(documents):
        tokens[row, list(places)] = IMAGE
    return tokens, latest_image_index(tokens, torch.zeros_like(tokens), IMAGE)


# ── Gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
@pytest.mark.parametrize("gates", ["scalar", "vector"])
@pytest.mark.parametrize("interval", [1, 2, 4])
def test_with_gates_at_zero_the_logits_are_the_language_models_to_the_last_bit(gates, interval):
    model = flamingo(gates, interval=interval, redraw=False)
    tokens, image_index = rows((0, 4), (2,))
    visual_tokens = model.resample(torch.randn(2, 2, 16, 20))
    segments = torch.where(torch.arange(9) < torch.tensor([[9], [6]]), 0, -1)
    assert torch.equal(model(tokens, visual_tokens, image_index), model.language_model(tokens))
    assert torch.equal(
        model(tokens, visual_tokens, image_index, segments), model.language_model(tokens, segments=segments)
    )


@torch.no_grad()
def test_each_gate_controls_its_own_branch():
    tokens, image_index = rows((0, 4), (2,))
    features = torch.randn(2, 2, 16, 20)
    for name in ("attention_gate", "mlp_gate"):
        model = flamingo(redraw=False)
        before = model(tokens, model.resample(features), image_index)
        getattr(model.cross_attention_layers[1], name).fill_(0.5)
        after = model(tokens, model.resample(features), image_index)
        assert (before - after).abs().max() > 1e-3, name
        # Images enter through the attention only.
        other = model(tokens, model.resample(torch.randn(2, 2, 16, 20)), image_index)
        assert torch.equal(after, other) == (name == "mlp_gate")


@torch.no_grad()
def test_without_gates_the_initial_logits_differ():
    model = flamingo("none")
    tokens, image_index = rows((0, 4), (2,))
    assert (
        model(tokens, model.resample(torch.randn(2, 2, 16, 20)), image_index) - model.language_model(tokens)
    ).abs().max() > 1e-2
    assert not any(
        "gate" in name and "mlp.gate" not in name for name, _ in model.cross_attention_layers.named_parameters()
    )
    with pytest.raises(CourseError, match="no gates"):
        model.save_pretrained("nowhere")


def test_at_gate_zero_only_the_gates_have_a_gradient():
    model = flamingo(redraw=False)
    tokens, image_index = rows((0, 4), (2,))
    text_loss(model(tokens, model.resample(torch.randn(2, 2, 16, 20)), image_index), tokens, tokens != IMAGE).backward()
    for layer in model.cross_attention_layers:
        assert layer.attention_gate.grad.abs().max() > 0 and layer.mlp_gate.grad.abs().max() > 0
        assert (layer.attention.value.weight.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in model.resampler.parameters())


# ── Which image a token attends to ────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_a_changed_image_changes_the_tokens_after_it_and_none_before():
    model = flamingo()
    tokens, image_index = rows((1, 4, 6))
    features = torch.randn(1, 3, 16, 20)
    before = model(tokens, model.resample(features), image_index)
    for image, place in enumerate((1, 4, 6)):
        other = features.clone()
        other[:, image] = torch.randn(16, 20)  # a constant shift would be removed by the norm
        moved = (model(tokens, model.resample(other), image_index) - before).abs().amax(dim=(0, 2))
        # Later tokens can be affected through the tokens between.
        assert (moved[:place] == 0).all() and (moved[place:] > 1e-5).all()


@torch.no_grad()
def test_a_token_attends_to_its_latest_image_only():
    """In one layer no information can pass through other tokens: the effect of an image equals the mask."""
    model = flamingo(interval=4)
    tokens, image_index = rows((1, 4, 6))
    assert image_index.tolist() == [[-1, 0, 0, 0, 1, 1, 2, 2, 2]]
    x, visual_tokens = model.language_model.embedding(tokens), model.resample(torch.randn(1, 3, 16, 20))

    def first_layer(visual_tokens):
        mask = cross_attention_mask(image_index, 3, 3)
        return model.cross_attention_layers[0](x, visual_tokens.flatten(1, 2), mask)

    before = first_layer(visual_tokens)
    for image in range(3):
        other = visual_tokens.clone()
        other[:, image] = torch.randn(3, 20)
        moved = (first_layer(other) - before).abs().amax(dim=(0, 2)) > 0
        assert moved.tolist() == [index == image for index in image_index[0].tolist()]
    # A token before any image has a zero attention output, and the MLP is still applied.
    layer = model.cross_attention_layers[0]
    after_mlp = gated_residual(x, layer.mlp(layer.mlp_norm(x)), layer.mlp_gate)
    torch.testing.assert_close(before[:, 0], after_mlp[:, 0])


def test_queries_and_keys_are_not_interchangeable():
    model = flamingo()
    tokens, image_index = rows((0, 4), (2,))
    features = torch.randn(2, 2, 16, 20)
    with torch.no_grad():
        before = model(tokens, model.resample(features), image_index)
        for block in model.resampler.blocks:
            block.attention.query, block.attention.key = block.attention.key, block.attention.query
        assert (model(tokens, model.resample(features), image_index) - before).abs().max() > 1e-3


def test_documents_in_one_row_do_not_attend_to_each_others_images():
    tokens = torch.tensor([[1, IMAGE, 2, 1, 3, IMAGE, 4, 0, 0]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, -1, -1]])
    assert latest_image_index(tokens, segments, IMAGE).tolist() == [[-1, 0, 0, -1, -1, 1, 1, -1, -1]]
    matrix = cross_attention_matrix(latest_image_index(tokens, segments, IMAGE), 2, 2)[0].int().tolist()
    assert matrix == [
        [0] * 4,
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0] * 4,
        [0] * 4,
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0] * 4,
        [0] * 4,
    ]


@torch.no_grad()
def test_packed_documents_have_the_same_logits_as_alone():
    model = flamingo()
    first, second = torch.tensor([[1, IMAGE, 2, 7]]), torch.tensor([[3, IMAGE, 4, IMAGE, 6]])
    features = torch.randn(1, 3, 16, 20)
    packed = torch.cat([first, second], dim=1)
    segments = torch.tensor([[0] * 4 + [1] * 5])
    together = model(packed, model.resample(features), latest_image_index(packed, segments, IMAGE), segments)
    for tokens, at, images in ((first, slice(0, 4), slice(0, 1)), (second, slice(4, 9), slice(1, 3))):
        image_index = latest_image_index(tokens, torch.zeros_like(tokens), IMAGE)
        alone = model(tokens, model.resample(features[:, images]), image_index)
        torch.testing.assert_close(together[:, at], alone, atol=1e-5, rtol=0)


# ── The resampler ─────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_the_number_of_latents_does_not_depend_on_the_image_size():
    model = flamingo()
    for size in (6, 12, 24):
        assert model.encode_images(torch.randn(2, 2, 3, size, size)).shape == (2, 2, 3, 20)


@torch.no_grad()
def test_latents_attend_to_the_patches_and_each_other():
    resampler = PerceiverResampler(RESAMPLER)
    features = torch.randn(2, 16, 20)
    before = resampler(features)
    maps = resampler.attention_maps(features)
    assert [tuple(each.shape) for each in maps] == [(2, 2, 3, 16 + 3)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 3, dtype=maps[0].dtype))
    # The order of the patches has no effect: positions can only be encoded in the features.
    torch.testing.assert_close(resampler(features[:, torch.randperm(16)]), before, atol=1e-5, rtol=0)
    resampler.latents.data[0] = torch.randn(20)
    moved = (resampler(features) - before).abs().amax(dim=(0, 2))
    assert (moved > 1e-4).all()


# ── Generation and training ───────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
def test_generated_tokens_are_the_most_likely_ones_and_attend_to_the_last_image(use_cache):
    model = flamingo()
    prompts = [torch.tensor([1, IMAGE, 5, 9, IMAGE]), torch.tensor([2, IMAGE]), torch.tensor([7, 8, 3])]
    visual_tokens = model.resample(torch.randn(3, 2, 16, 20))
    indices = [latest_image_index(row[None], torch.zeros_like(row)[None], IMAGE)[0] for row in prompts]
    generated = model.generate(prompts, visual_tokens, indices, Sampling(5), use_cache=use_cache)
    for row, (prompt, image_index) in enumerate(zip(prompts, indices, strict=True)):
        tokens = prompt
        for _ in range(5):
            logits = model(tokens[None], visual_tokens[row : row + 1], image_index[None])
            tokens = torch.cat([tokens, logits[0, -1:].argmax(-1)])
            image_index = torch.cat([image_index, image_index[-1:]])
        assert torch.equal(generated[row], tokens[len(prompt) :])


def test_training_changes_the_inserted_parts_only():
    torch.manual_seed(3)
    model = flamingo(redraw=False)
    tokens = torch.tensor([[1, IMAGE, 5 + k, 9 + k, IMAGE, 6 + k, 2] for k in range(4)])
    image_index = latest_image_index(tokens, torch.zeros_like(tokens), IMAGE)
    features = torch.randn(4, 2, 16, 20)
    loss_mask = text_token_mask(tokens, torch.zeros_like(tokens), IMAGE)
    frozen = weights_digest(model.vision_encoder), weights_digest(model.language_model)
    trained = ("resampler", "cross_attention_layers")
    initial = {name: p.clone() for name, p in model.named_parameters() if name.startswith(trained)}

    def loss(model, batch):
        features, tokens, image_index, loss_mask = batch
        return text_loss(model(tokens, model.resample(features), image_index), tokens, loss_mask)

    before = loss(model, (features, tokens, image_index, loss_mask)).item()
    config = TrainingConfig(steps=40, learning_rate=1e-2, warmup_steps=4, log_every=40)
    train(model, lambda step: (features, tokens, image_index, loss_mask), loss, config, stages=training_stage(40))
    assert (weights_digest(model.vision_encoder), weights_digest(model.language_model)) == frozen
    assert [name for name, p in model.named_parameters() if name in initial and torch.equal(p, initial[name])] == []
    after = loss(model, (features, tokens, image_index, loss_mask)).item()
    swapped = loss(model, (features.flip(0), tokens, image_index, loss_mask)).item()
    assert after < before - 0.5 and swapped > after + 0.2


def test_intervals_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="before every 3 blocks does not fit 4 blocks"):
        flamingo(interval=3)
    with pytest.raises(ValueError, match="cross_attention_interval is 0"):
        FlamingoConfig(RESAMPLER, cross_attention_interval=0)
