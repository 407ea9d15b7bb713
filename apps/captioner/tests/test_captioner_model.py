"""The captioner itself: its size, what sees what, what the loss asks for, and how it writes."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from apps.captioner.config import FULL, CaptionerConfig
from apps.captioner.model import Captioner, caption_loss, parameters_by_part
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from shared.transformer import DecoderConfig, Sampling

TINY = CaptionerConfig(
    VisionTransformerConfig(image_size=16, patch_size=8, width=16, depth=2, heads=2, mlp_dim=24, dropout=0.4),
    DecoderConfig(vocab_size=20, width=24, depth=2, heads=3, kv_heads=3, mlp_dim=32, rotary_base=100.0),
)


@pytest.fixture
def model() -> Captioner:
    torch.manual_seed(0)
    return Captioner(TINY).eval()


def pictures(count: int, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def words(count: int, length: int, vocab: int = 20) -> torch.Tensor:
    return torch.randint(0, vocab, (count, length), generator=torch.Generator().manual_seed(2))


# ── The preset ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_preset_is_what_was_asked_for():
    eye, language = FULL.eye, FULL.language
    assert (eye.image_sides, eye.channels, eye.patch_size) == ((96, 96), 3, 16)
    assert (eye.width, eye.depth, eye.mlp_dim, eye.activation, eye.swiglu, eye.dropout) == (
        512,
        16,
        2048,
        "gelu",
        False,
        0.4,
    )
    assert (language.vocab_size, language.width, language.depth, language.mlp_dim) == (32_000, 128, 8, 11_008)
    assert (eye.heads, language.heads, language.kv_heads) == (8, 8, 8)


def test_the_preset_counts_93_million_weights():
    with torch.device("meta"):
        counted = parameters_by_part(Captioner(FULL))
    block = 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 2 * 2 * 512
    assert counted["eye"] == (768 * 512 + 512) + 36 * 512 + 16 * block + 2 * 512
    assert counted["bridge"] == 512 * 128 + 128
    layer = 4 * 128 * 128 + 3 * 128 * 11_008 + 2 * 128
    assert counted["language"] == 2 * 32_000 * 128 + 8 * layer + 128
    assert counted["all"] == 93_452_032


def test_the_preset_learns_from_one_step():
    torch.manual_seed(0)
    model = Captioner(FULL).train()
    batch = (pictures(1, 96), words(1, 5, 32_000), torch.zeros(1, 5, dtype=torch.long))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = caption_loss(model, batch)
    before.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or "key.bias" in name, name  # a bias on all keys changes no attention
    optimizer.step()
    with torch.no_grad():
        assert caption_loss(model.eval(), batch) < before


# ── The eye ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_eye_without_chance_is_lesson_ones():
    torch.manual_seed(0)
    eye = VisionTransformer(TINY.eye)
    plain = VisionTransformer(dataclasses.replace(TINY.eye, dropout=0.0))
    plain.load_state_dict(eye.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(eye.eval().features(images), plain.eval().features(images))
    assert not torch.equal(eye.train().features(images), plain.train().features(images))


def test_dropout_sits_where_the_paper_puts_it():
    """After the embedding with its positions, after attention's output, after either matrix of the feed-forward."""
    torch.manual_seed(0)
    wide = dataclasses.replace(TINY.eye, width=512, heads=8, mlp_dim=2048, dropout=0.4, depth=1)
    eye = VisionTransformer(wide).train()
    images = torch.randn(4, 3, 16, 16)
    embedded, block = eye.embed_patches(images), eye.blocks[0]
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
def test_impossible_eyes_are_refused(wrong):
    with pytest.raises(ValueError, match="dropout"):
        VisionTransformerConfig(**wrong)


# ── What sees what ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shapes(model):
    pixels = pictures(3)
    assert model.image_tokens(pixels).shape == (3, 5, 24)  # four patches behind the class token
    assert model(pixels, words(3, 7)).shape == (3, 7, 20)


def test_every_word_sees_the_picture(model):
    tokens = words(1, 6)
    one, other = model(pictures(2)[:1], tokens), model(pictures(2)[1:], tokens)
    assert ((one - other).abs().amax(-1) > 1e-4).all()


def test_no_word_sees_a_later_one(model):
    tokens = words(1, 6)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 20
    one, other = model(pictures(1), tokens), model(pictures(1), changed)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


# ── What the loss asks for ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_is_the_surprise_at_each_word_after_those_before(model):
    pixels, tokens = pictures(2), words(2, 6)
    lengths = (6, 4)
    segments = torch.tensor([[0] * 6, [0, 0, 0, 0, -1, -1]])
    surprises = []
    for row, length in enumerate(lengths):
        for place in range(1, length):
            # What comes next, asked of a model that is shown only what stands before.
            logits = model(pixels[row : row + 1], tokens[row : row + 1, :place])[0, -1]
            surprises.append(-logits.log_softmax(-1)[tokens[row, place]])
    torch.testing.assert_close(caption_loss(model, (pixels, tokens, segments)), torch.stack(surprises).mean())


def test_padding_changes_nothing(model):
    pixels, tokens = pictures(1), words(1, 4)
    alone = caption_loss(model, (pixels, tokens, torch.zeros_like(tokens)))
    padded = F.pad(tokens, (0, 3), value=7)
    segments = F.pad(torch.zeros_like(tokens), (0, 3), value=-1)
    torch.testing.assert_close(caption_loss(model, (pixels, padded, segments)), alone)


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_writes_the_likeliest_word_again_and_again(model):
    pixels, begin, end = pictures(3), 18, 19
    written = model.write(pixels, begin, end, Sampling(5))
    for row, caption in enumerate(written):
        tokens = [begin]
        for _ in range(5):
            likeliest = model(pixels[row : row + 1], torch.tensor([tokens]))[0, -1].argmax().item()
            tokens.append(likeliest)
            if likeliest == end:
                break
        assert caption.tolist() == [token for token in tokens[1:] if token != end]


def test_writing_leaves_the_model_learning(model):
    model.train()
    one, other = (model.write(pictures(1), 18, 19, Sampling(4))[0] for _ in range(2))
    assert torch.equal(one, other), "dropout was on while it wrote"
    assert model.training
