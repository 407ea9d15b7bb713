"""The image tokenizer: quantizers, encoder and decoder, losses, files, refused inputs, and short trainings."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data.toybox.heldout import sample_scenes
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_11_chameleon.experiment.evaluate_tokenizer import measure_tokenizer, psnr
from lessons.lesson_11_chameleon.experiment.tokenizer_training import (
    AdversarialTokenizer,
    PixelLoss,
    TokenizerLoss,
    TokenizerRecipe,
    train_tokenizer,
)
from lessons.lesson_11_chameleon.model.discriminator import (
    PatchDiscriminator,
    adaptive_weight_of_losses,
    discriminator_loss,
    generator_loss,
)
from lessons.lesson_11_chameleon.model.fsq import LEVELS, FiniteScalarQuantizer, codes_of_levels, levels_of_codes
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer, TokenizerConfig
from lessons.lesson_11_chameleon.model.perceptual_loss import PerceptualLoss, feature_distance
from lessons.lesson_11_chameleon.model.quantizer import VectorQuantizer, code_frequencies, codebook_use, perplexity
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.training import RunOptions

SMALL = {"image_size": 8, "width": 8, "codebook_size": 16, "code_width": 4}


def images(count=3, size=8, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def small_tokenizer(**changes):
    torch.manual_seed(0)
    return redraw_weights(ImageTokenizer(TokenizerConfig(**SMALL | changes)), buffers=True)


# ── The learned codebook ──────────────────────────────────────────────────────────────────────────────────────────────


def clusters(count=400, seed=0):
    """Vectors around four corners, as maps [batch, 2, 5, 4], and the corners."""
    torch.manual_seed(seed)
    corners = torch.tensor([[4.0, 4.0], [-4.0, 4.0], [4.0, -4.0], [-4.0, -4.0]])
    vectors = corners[torch.randint(4, (count,))] + 0.1 * torch.randn(count, 2)
    return vectors.view(-1, 5, 4, 2).permute(0, 3, 1, 2), corners


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_the_codebook_finds_the_centers_of_clusters(learning):
    quantizer = VectorQuantizer(8, 2, learning=learning, decay=0.8, restart=0.2).train()
    optimizer = torch.optim.Adam(list(quantizer.parameters()) or [nn.Parameter(torch.zeros(1))], 0.05)
    for step in range(60):
        maps, corners = clusters(seed=step)
        optimizer.zero_grad()
        loss = quantizer(maps).loss
        if learning == "gradient":
            loss.backward()
            optimizer.step()
    distances = torch.cdist(corners, quantizer.codebook.detach()).min(dim=1).values
    assert distances.max() < 0.25
    quantized = quantizer.eval()(maps)
    assert codebook_use(quantized.codes, 8) >= 0.5 and perplexity(quantized.codes, 8) > 3.9


def test_without_restarts_codes_far_from_all_vectors_stay_dead():
    maps, _ = clusters()
    quantizer = VectorQuantizer(8, 2, decay=0.8, restart=0.0).train()
    quantizer.codebook.copy_(torch.cat([torch.tensor([[0.0, 0.0]]), torch.full((7, 2), 100.0)]))
    for _ in range(10):
        quantizer(maps)
    codes = quantizer.encode(maps)
    assert codebook_use(codes, 8) == 1 / 8 and perplexity(codes, 8) == 1
    assert (quantizer.codebook[1:] == 100).all()
    restarted = VectorQuantizer(8, 2, decay=0.8, restart=0.1).train()
    restarted.load_state_dict(quantizer.state_dict())
    for _ in range(30):
        restarted(maps)
    assert perplexity(restarted.encode(maps), 8) > 4


def test_the_first_batch_becomes_the_codebook():
    maps, _ = clusters()
    quantizer = VectorQuantizer(16, 2, decay=0.9).train()
    vectors = {tuple(vector) for vector in maps.permute(0, 2, 3, 1).reshape(-1, 2).tolist()}
    quantizer._restart(maps.permute(0, 2, 3, 1).reshape(-1, 2))
    assert all(tuple(entry) in vectors for entry in quantizer.codebook.tolist())


def test_evaluation_and_encoding_change_nothing():
    maps, _ = clusters()
    quantizer = VectorQuantizer(8, 2).train()
    quantizer(maps)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.encode(maps)
    quantizer.eval()(maps)
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("quantizer", [VectorQuantizer(24, 3), FiniteScalarQuantizer((4, 3, 2))], ids=["vq", "fsq"])
def test_both_quantizers_have_one_interface(quantizer):
    maps = torch.randn(2, 3, 4, 5, requires_grad=True)
    result = quantizer.eval()(maps)
    assert result.maps.shape == maps.shape and result.codes.shape == (2, 4, 5) and result.codes.dtype == torch.int64
    assert quantizer.codebook_size == 24 and quantizer.width == 3
    assert torch.equal(quantizer.encode(maps), result.codes)
    torch.testing.assert_close(quantizer.decode(result.codes), result.maps.detach())
    result.maps.sum().backward()
    assert (maps.grad > 0).all()


def test_the_straight_through_gradient_reaches_the_encoder_unchanged():
    maps, upstream = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
    VectorQuantizer(8, 3).eval()(maps).maps.backward(upstream)
    assert torch.equal(maps.grad, upstream)


def test_frequencies_and_their_summaries():
    codes = torch.tensor([[0, 1], [1, 1]])
    assert code_frequencies(codes, 4).tolist() == [0.25, 0.75, 0, 0]
    assert codebook_use(codes, 4) == 0.5
    assert float(perplexity(codes, 4)) == pytest.approx(math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3)))


# ── Finite scalar quantization ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("levels", LEVELS.values(), ids=str)
def test_every_code_has_its_own_vector(levels):
    sizes = torch.tensor(levels, dtype=torch.float32)
    codes = torch.arange(math.prod(levels))
    vectors = levels_of_codes(codes, sizes)
    assert torch.equal(codes_of_levels(vectors, sizes), codes)
    assert len(vectors.unique(dim=0)) == len(codes) and vectors.abs().max() == 1


def test_levels_are_about_as_many_as_their_codebook_size():
    for size, levels in LEVELS.items():
        assert 0.93 * size <= math.prod(levels) <= 1.07 * size


# ── Images to codes to images ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "fsq"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_halve_the_sides(quantizer, stages):
    tokenizer = small_tokenizer(stages=stages, quantizer=quantizer)
    side = 8 // 2**stages
    assert tokenizer.config.side == side
    codes = tokenizer.encode(images())
    assert codes.shape == (3, side, side) and 0 <= codes.min() <= codes.max() < 16
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (3, 3, 8, 8) and 0 <= decoded.min() <= decoded.max() <= 1
    result = tokenizer(images())
    assert torch.equal(result.codes, codes)
    torch.testing.assert_close(result.images.clamp(0, 1), decoded, atol=1e-4, rtol=0)


def test_images_of_a_batch_do_not_influence_each_other():
    tokenizer, batch = small_tokenizer(), images(4)
    alone = torch.cat([tokenizer(batch[index : index + 1]).images for index in range(4)])
    torch.testing.assert_close(tokenizer(batch).images, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quantizer", ["ema", "gradient", "fsq"])
def test_every_weight_gets_a_gradient(quantizer):
    tokenizer = small_tokenizer(quantizer=quantizer).train()
    result = tokenizer(images())
    ((result.images - images()).square().mean() + result.loss).backward()
    for name, parameter in tokenizer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_the_default_tokenizer_is_small_enough_to_ship():
    parameters = sum(parameter.numel() for parameter in ImageTokenizer().parameters())
    assert 300_000 < parameters < 1_000_000


@pytest.mark.parametrize("changes", [{}, {"quantizer": "gradient"}, {"quantizer": "fsq"}, {"stages": 3, "blocks": 2}])
def test_files_give_the_same_tokenizer(tmp_path, changes):
    tokenizer = small_tokenizer(**changes)
    tokenizer.save_pretrained(tmp_path)
    loaded = ImageTokenizer.from_pretrained(tmp_path, codebook_size=16)
    assert loaded.config == tokenizer.config and not loaded.training
    codes = tokenizer.encode(images())
    assert torch.equal(loaded.encode(images()), codes) and torch.equal(loaded.decode(codes), tokenizer.decode(codes))


# ── Refused inputs ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 3, 9, 9), r"images have the shape \[2, 3, 9, 9\]; expected \[batch, 3, 8, 8\]"),
        (torch.zeros(2, 1, 8, 8), "resize or crop them"),
        (torch.zeros(3, 8, 8), r"images have the shape \[3, 8, 8\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"images are torch.uint8; expected .*images.float\(\) / 255"),
        (torch.full((2, 3, 8, 8), 255.0), "pixels lie between 255 and 255; expected 0 to 1"),
        (torch.full((2, 3, 8, 8), -0.1), "expected 0 to 1"),
        (torch.full((2, 3, 8, 8), math.nan), "pixels lie between nan and nan; expected 0 to 1, without NaN"),
    ],
)
def test_images_that_are_none_are_refused(batch, message):
    for call in (ImageTokenizer.encode, ImageTokenizer.forward):
        with pytest.raises(ValueError, match=message):
            call(small_tokenizer(), batch)


@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
def test_codes_that_are_none_are_refused(quantizer):
    tokenizer = small_tokenizer(quantizer=quantizer)
    with pytest.raises(ValueError, match="codes lie between 0 and 16; this codebook has the codes 0 to 15"):
        tokenizer.decode(torch.tensor([[[0, 1], [2, 16]]]))
    with pytest.raises(ValueError, match="codes lie between -1 and 3"):
        tokenizer.decode(torch.tensor([[[0, -1], [2, 3]]]))
    with pytest.raises(ValueError, match=r"codes have the shape \[1, 4, 4\]; expected \[batch, 2, 2\]"):
        tokenizer.decode(torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="there is no code to count"):
        codebook_use(torch.zeros(0, 2, 2, dtype=torch.long), 16)


def test_a_file_with_another_codebook_size_is_refused(tmp_path):
    small_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="has 16 codes, and 32 are expected; load another tokenizer, or build"):
        ImageTokenizer.from_pretrained(tmp_path, codebook_size=32)
    rewrite_config(tmp_path, lambda config: config.update(codebook_size=32))
    with pytest.raises(CourseError, match="do not fit this model"):
        ImageTokenizer.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(codebook_size=16, stages=5))
    with pytest.raises(CourseError, match="does not halve 5 times"):
        ImageTokenizer.from_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(quantizer="rvq"))
    with pytest.raises(CourseError, match="expected one of ema, gradient, fsq"):
        ImageTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 10}, "10 pixels per side does not halve 2 times"),
        ({"stages": 0}, "does not halve 0 times"),
        ({"width": 12}, "expected a multiple of 8"),
        ({"quantizer": "rvq"}, "expected one of ema, gradient, fsq"),
        ({"quantizer": "fsq", "codebook_size": 100}, "no levels are listed for 100 codes; choose one of 16, 64"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**SMALL | changes)


def test_quantizers_refuse_settings_out_of_range():
    for wrong in ({"learning": "k-means"}, {"decay": 1.0}, {"commitment": -1.0}, {"restart": 1.0}):
        with pytest.raises(ValueError, match="expected ema or gradient, a decay and a restart from 0"):
            VectorQuantizer(8, 2, **wrong)
    with pytest.raises(ValueError, match="1 codes of width 2 are too few"):
        VectorQuantizer(1, 2)
    for levels in ((), (4, 1)):
        with pytest.raises(ValueError, match="expected at least one channel, each with 2 levels or more"):
            FiniteScalarQuantizer(levels)


# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def small_encoder():
    torch.manual_seed(0)
    config = VisionTransformerConfig(image_size=8, patch_size=2, width=16, depth=2, heads=2, mlp_dim=16, classes=0)
    return redraw_weights(VisionTransformer(config))


def test_feature_distance_by_hand():
    features, expected = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[0.0, 2.0], [7.0, 0.0]]])
    # (0.6, 0.8) − (0, 1), and two vectors of one direction
    assert feature_distance(features, expected).item() == pytest.approx((0.36 + 0.04) / 2)


def test_the_perceptual_loss_compares_images_and_freezes_its_encoder():
    encoder = small_encoder()
    loss = PerceptualLoss(encoder, (0, 2))
    batch = images(2).requires_grad_()
    assert loss(batch, batch.detach()).tolist() == [0, 0]
    loss(batch, images(2, seed=1)).sum().backward()
    assert batch.grad.abs().min() >= 0 and batch.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
    assert not list(loss.parameters()) and not loss.state_dict()
    with pytest.raises(ValueError, match="the vision encoder has the hidden states 0 to 2"):
        PerceptualLoss(encoder, (3,))


def test_the_perceptual_loss_normalizes_pixels_as_the_encoder_was_trained():
    encoder, pixels = small_encoder(), torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    (features,) = PerceptualLoss(encoder, (1,)).features(pixels.float() / 255)
    expected = encoder.hidden_states(normalize_pixels(pixels))[1][:, encoder.config.prefix_tokens :]
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_on_average_features_of_the_shipped_clip_differ_more_for_a_blur_than_for_a_shade_of_the_same_error():
    rendered = render_tensors(sample_scenes("validation", 0, 20, (2, 3))).float() / 255
    blurred = F.interpolate(F.avg_pool2d(rendered, 4), scale_factor=4)
    error = (blurred - rendered).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    darker = (rendered - error).clamp(0, 1)
    loss = PerceptualLoss.from_clip()
    assert loss(blurred, rendered).mean() > loss(darker, rendered).mean()


def test_each_adversarial_loss_trains_one_side():
    torch.manual_seed(0)
    discriminator, real = PatchDiscriminator(8), images(2)
    generated = images(2, seed=1).requires_grad_()
    discriminator_loss(discriminator, real, generated).backward()
    assert generated.grad is None and all(parameter.grad is not None for parameter in discriminator.parameters())
    discriminator.zero_grad()
    generator_loss(discriminator, generated).backward()
    assert generated.grad.abs().sum() > 0 and all(parameter.grad is None for parameter in discriminator.parameters())
    assert generator_loss(discriminator, generated).item() == pytest.approx(-discriminator(generated).mean().item())


def test_the_adaptive_weight_equalizes_the_gradients_of_the_last_layer():
    layer = nn.Linear(3, 2)
    output = layer(torch.randn(4, 3))
    first, second = output.square().mean(), 100 * output.mean()
    weight = adaptive_weight_of_losses(first, second, layer.weight)
    gradients = [
        torch.autograd.grad(loss, layer.weight, retain_graph=True)[0].norm() for loss in (first, weight * second)
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_psnr():
    expected = torch.zeros(2, 3, 4, 4)
    assert psnr(torch.stack([expected[0] + 0.1, expected[1] + 1]), expected).tolist() == pytest.approx(
        [20, 0], abs=1e-5
    )


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────

QUICK = {"steps": 30, "batch_size": 8, "learning_rate": 4e-3, "scenes": 16}


@pytest.mark.parametrize(
    "recipe",
    [
        TokenizerRecipe(TokenizerConfig(width=8, codebook_size=16), **QUICK),
        TokenizerRecipe(TokenizerConfig(width=8, codebook_size=16, quantizer="fsq"), **QUICK),
        TokenizerRecipe(TokenizerConfig(width=8, codebook_size=16, stages=3), adversarial=0.1, exponent=1, **QUICK),
    ],
    ids=["ema", "fsq", "adversarial"],
)
def test_training_lowers_the_pixel_loss(recipe):
    tokenizer, result = train_tokenizer(recipe, RunOptions())
    assert not tokenizer.training
    assert result.history[-1]["pixels"] < 0.7 * result.history[0]["pixels"]
    assert ("adaptive_weight" in result.history[-1]) == bool(recipe.adversarial)
    assert "adaptive_weight" not in result.history[0]


def test_the_pixel_loss_of_each_images_mean_color_is_1():
    pixels = render_tensors(sample_scenes("train", 0, 20, (1, 5)), 16)
    expected = pixels.float() / 255
    mean = expected.mean(dim=(2, 3), keepdim=True).expand_as(expected)
    for exponent in (1, 2):
        loss = PixelLoss(pixels, exponent)
        assert float(loss(expected.mean(dim=(0, 2, 3), keepdim=True).expand_as(expected), expected)) == pytest.approx(1)
        assert 0.5 < float(loss(mean, expected)) < 1 and float(loss(expected, expected)) == 0


def test_the_perceptual_loss_is_a_part_of_the_loss():
    recipe = TokenizerRecipe(TokenizerConfig(width=8, codebook_size=16), perceptual=0.5)
    pixels = render_tensors(sample_scenes("train", 0, 4, (1, 5)))
    model = AdversarialTokenizer(ImageTokenizer(recipe.config).eval(), None)
    loss, parts = TokenizerLoss(recipe, PixelLoss(pixels, 2), PerceptualLoss.from_clip())(model, (pixels, 0))
    expected = parts["pixels"] + 0.5 * parts["perceptual"] + parts["quantizer"]
    assert parts["perceptual"] > 0
    torch.testing.assert_close(loss, expected)


def test_measurements_stand_beside_those_of_real_renders():
    measured = measure_tokenizer(ImageTokenizer(TokenizerConfig(width=8, codebook_size=16)).eval(), "validation", 4)
    for name in ("place", "shape", "color", "size", "texture", "object", "count", "scene"):
        assert 0 <= measured[name] <= 1 and measured[f"real_{name}"] > 0.9
    assert measured["object"] < 0.5 and measured["psnr"] < 20 and 1 <= measured["perplexity"] <= 16
    assert measured["use"] * 16 == pytest.approx(round(measured["use"] * 16))
