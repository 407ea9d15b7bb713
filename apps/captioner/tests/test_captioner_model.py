"""The captioner's size, attention, loss and generation."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from apps.captioner.config import FULL, CaptionerConfig
from apps.captioner.model import Captioner, caption_loss, parameter_counts
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.testing import assert_loss_adds_up
from shared.transformer import DecoderConfig, Sampling

TINY = CaptionerConfig(
    VisionTransformerConfig(image_size=16, patch_size=8, width=16, depth=2, heads=2, mlp_dim=24, dropout=0.4),
    DecoderConfig(vocab_size=20, width=24, depth=2, heads=3, kv_heads=3, mlp_dim=32, rotary_base=100.0),
)


@pytest.fixture
def model() -> Captioner:
    torch.manual_seed(0)
    return Captioner(TINY).eval()


def random_images(count: int, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def random_tokens(count: int, length: int, vocab: int = 20) -> torch.Tensor:
    return torch.randint(0, vocab, (count, length), generator=torch.Generator().manual_seed(2))


# ── The preset ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_preset_has_the_specified_sizes():
    vision, language = FULL.vision, FULL.language
    assert (vision.image_sides, vision.channels, vision.patch_size) == ((96, 96), 3, 16)
    assert (vision.width, vision.depth, vision.mlp_dim, vision.activation, vision.swiglu, vision.dropout) == (
        512,
        16,
        2048,
        "gelu",
        False,
        0.4,
    )
    assert (language.vocab_size, language.width, language.depth, language.mlp_dim) == (32_000, 128, 8, 11_008)
    assert (vision.heads, language.heads, language.kv_heads) == (8, 8, 8)


def test_the_preset_counts_93_million_weights():
    with torch.device("meta"):
        counts = parameter_counts(Captioner(FULL))
    block = 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 2 * 2 * 512
    assert counts["vision_encoder"] == (768 * 512 + 512) + 36 * 512 + 16 * block + 2 * 512
    assert counts["connector"] == 512 * 128 + 128
    layer = 4 * 128 * 128 + 3 * 128 * 11_008 + 2 * 128
    assert counts["language_model"] == 2 * 32_000 * 128 + 8 * layer + 128
    assert counts["all"] == 93_452_032


def test_the_preset_learns_from_one_step():
    torch.manual_seed(0)
    model = Captioner(FULL).train()
    batch = (random_images(1, 96), random_tokens(1, 5, 32_000), torch.zeros(1, 5, dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = caption_loss(model, batch).mean()
    before.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or "key.bias" in name, name  # a bias on all keys changes no attention
    optimizer.step()
    with torch.no_grad():
        assert caption_loss(model.eval(), batch).mean() < before


# ── The vision encoder ────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_dropout_the_features_are_lesson_ones():
    torch.manual_seed(0)
    vision_encoder = VisionTransformer(TINY.vision)
    plain = VisionTransformer(dataclasses.replace(TINY.vision, dropout=0.0))
    plain.load_state_dict(vision_encoder.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(vision_encoder.eval().features(images), plain.eval().features(images))
    assert not torch.equal(vision_encoder.train().features(images), plain.train().features(images))


def test_dropout_sits_where_the_paper_puts_it():
    """After the embedding with its positions, after attention's output, after both linear layers of the MLP."""
    torch.manual_seed(0)
    wide = dataclasses.replace(TINY.vision, width=512, heads=8, mlp_dim=2048, dropout=0.4, depth=1)
    vision_encoder = VisionTransformer(wide).train()
    images = torch.randn(4, 3, 16, 16)
    embedded, block = vision_encoder.embed_patches(images), vision_encoder.blocks[0]
    inner = []
    block.mlp.down.register_forward_pre_hook(lambda _, inputs: inner.append(inputs[0]))
    mlp_output = block.mlp(embedded)
    # With an MLP that returns zeros, what the block adds to its input is attention's output after dropout.
    block.mlp.forward = torch.zeros_like
    values_at = [embedded, block(embedded) - embedded, mlp_output, *inner]
    for values in values_at:
        assert (values == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert len(values_at) == 4


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"dropout": -0.1}, {"swiglu": True, "dropout": 0.1}], ids=str)
def test_impossible_dropout_is_refused(wrong):
    with pytest.raises(ValueError, match="dropout"):
        VisionTransformerConfig(**wrong)


# ── Attention ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shapes(model):
    pixels = random_images(3)
    assert model.image_tokens(pixels).shape == (3, 5, 24)  # the class token and four patches
    assert model(pixels, random_tokens(3, 7)).shape == (3, 7, 20)


def test_every_token_depends_on_the_image(model):
    tokens = random_tokens(1, 6)
    one, other = model(random_images(2)[:1], tokens), model(random_images(2)[1:], tokens)
    assert ((one - other).abs().amax(-1) > 1e-4).all()


def test_no_token_depends_on_a_later_one(model):
    tokens = random_tokens(1, 6)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 20
    one, other = model(random_images(1), tokens), model(random_images(1), changed)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


# ── The loss ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_is_the_cross_entropy_of_each_token_given_those_before(model):
    pixels, tokens = random_images(2), random_tokens(2, 6)
    lengths = (6, 4)
    segments = torch.tensor([[0] * 6, [0, 0, 0, 0, -1, -1]])
    losses = []
    for row, length in enumerate(lengths):
        for position in range(1, length):
            # The next token, predicted from the tokens before it only.
            logits = model(pixels[row : row + 1], tokens[row : row + 1, :position])[0, -1]
            losses.append(-logits.log_softmax(-1)[tokens[row, position]])
    torch.testing.assert_close(caption_loss(model, (pixels, tokens, segments)).mean(), torch.stack(losses).mean())


def test_losses_of_unequal_captions_add_up(model):
    pixels, tokens = random_images(3), random_tokens(3, 9)
    segments = torch.where(torch.arange(9) < torch.tensor([[3], [9], [5]]), 0, -1)
    assert_loss_adds_up(lambda rows: caption_loss(model, (pixels[rows], tokens[rows], segments[rows])), 3)


def test_padding_changes_nothing(model):
    pixels, tokens = random_images(1), random_tokens(1, 4)
    alone = caption_loss(model, (pixels, tokens, torch.zeros_like(tokens)))
    padded = F.pad(tokens, (0, 3), value=7)
    segments = F.pad(torch.zeros_like(tokens), (0, 3), value=-1)
    torch.testing.assert_close(caption_loss(model, (pixels, padded, segments)), alone)


# ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_generates_the_most_likely_token_at_each_step(model):
    pixels, begin, end = random_images(3), 18, 19
    captions = model.generate(pixels, begin, end, Sampling(5))
    for row, caption in enumerate(captions):
        tokens = [begin]
        for _ in range(5):
            next_token = model(pixels[row : row + 1], torch.tensor([tokens]))[0, -1].argmax().item()
            tokens.append(next_token)
            if next_token == end:
                break
        assert caption.tolist() == [token for token in tokens[1:] if token != end]


def test_generation_restores_the_training_mode(model):
    model.train()
    one, other = (model.generate(random_images(1), 18, 19, Sampling(4))[0] for _ in range(2))
    assert torch.equal(one, other), "dropout was on during generation"
    assert model.training
