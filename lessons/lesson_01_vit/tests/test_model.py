"""The Vision Transformer and its parts: properties that hold for any weights."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_01_vit.model import (
    AttentionPooling,
    ConvolutionalTeacher,
    MaskedAutoencoder,
    MaskedAutoencoderConfig,
    PatchEmbedding,
    VisionTransformer,
    VisionTransformerConfig,
    hard_distillation_loss,
    interpolate_positions,
    masked_loss,
    patch_coordinates,
    patchify,
    random_masking,
    sine_cosine_positions,
    unpatchify,
)
from shared.testing import redraw_weights

SMALL = VisionTransformerConfig(
    image_size=12, patch_size=3, channels=2, width=40, depth=2, heads=5, mlp_dim=48, classes=7
)


def make(**changes):
    return redraw_weights(VisionTransformer(replace(SMALL, **changes)))


# ── Patches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("height", "width", "patch"), [(12, 12, 3), (6, 15, 3), (8, 4, 4), (5, 7, 1)])
def test_patch_embedding_equals_a_strided_convolution(height, width, patch):
    images, embedding = torch.randn(2, 3, height, width), PatchEmbedding(patch, 3, 10)
    kernel = embedding.project.weight.reshape(10, patch, patch, 3).permute(0, 3, 1, 2)
    expected = F.conv2d(images, kernel, embedding.project.bias, stride=patch).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(images), expected)


def test_patches_are_in_row_major_order_and_invertible():
    images = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[1, 4].tolist() == [images[1, c, 2 + p, 2 + q] for p in (0, 1) for q in (0, 1) for c in range(3)]
    assert torch.equal(unpatchify(patches, (2, 3), 2), images)


# ── Positions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def shuffled(images, patch, order):
    grid = (images.shape[-2] // patch, images.shape[-1] // patch)
    return unpatchify(patchify(images, patch)[:, order], grid, patch)


@pytest.mark.parametrize("pooling", ["class", "mean", "attention"])
@pytest.mark.parametrize("positions", ["none", "learned", "sine-cosine", "rotary"])
def test_only_positions_distinguish_shuffled_patches(positions, pooling):
    model = make(positions=positions, pooling=pooling, registers=2)
    images, order = torch.randn(2, 2, 12, 15), torch.randperm(20)
    with torch.no_grad():
        difference = (model(shuffled(images, 3, order)) - model(images)).abs().max()
        tokens, permuted = model.features(images)[:, 3:], model.features(shuffled(images, 3, order))[:, 3:]
    if positions == "none":
        assert difference < 1e-4
        torch.testing.assert_close(permuted, tokens[:, order], atol=1e-4, rtol=0)
    else:
        assert difference > 0.01


def test_rotary_positions_depend_on_distances_only():
    """Without tokens at the origin, shifting all coordinates by the same amount has no effect."""
    model = make(positions="rotary", class_token=False, pooling="mean")
    tokens, coordinates = torch.randn(1, 20, 40), patch_coordinates((4, 5))[None]
    with torch.no_grad():
        original, shifted = (
            model.encode(tokens, model.angles(coordinates + torch.tensor(shift))) for shift in ([0, 0], [3, 11])
        )
        mirrored = model.encode(tokens, model.angles(coordinates.flip(-1)))
    torch.testing.assert_close(original, shifted, atol=1e-4, rtol=0)
    assert (original - mirrored).abs().max() > 0.01


def test_rotary_angles_are_those_of_the_row_and_then_of_the_column():
    """A head of dimension 8 has four pairs: two with angles of 1 and 1/10 rad per row, and two likewise per column."""
    angles = make(positions="rotary", registers=1).angles(torch.tensor([[[3, 5]]]))
    expected = torch.tensor([[0.0] * 4, [0.0] * 4, [3.0, 0.3, 5.0, 0.5]])
    torch.testing.assert_close(angles[0], expected)


def test_coordinates_are_row_then_column():
    assert patch_coordinates((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("grid", [(7, 3), (2, 2), (4, 10)])
def test_interpolated_positions(grid, antialias):
    old = (4, 5)
    constant = torch.full((20, 3), 2.5)
    resized = interpolate_positions(constant, old, grid, antialias=antialias)
    torch.testing.assert_close(resized, torch.full((grid[0] * grid[1], 3), 2.5))
    # Positions that depend on the row only still do, and a mirrored grid gives the mirrored result.
    rows = torch.randn(4, 1, 3).expand(4, 5, 3)
    resized = interpolate_positions(rows.reshape(20, 3), old, grid, antialias=antialias).reshape(*grid, 3)
    torch.testing.assert_close(resized, resized[:, :1].expand_as(resized))
    assert (resized[0] - resized[-1]).abs().max() > 0.01
    positions = torch.randn(4, 5, 3)
    one = interpolate_positions(positions.reshape(20, 3), old, grid, antialias=antialias).reshape(*grid, 3)
    other = interpolate_positions(positions.flip(1).reshape(20, 3), old, grid, antialias=antialias).reshape(*grid, 3)
    torch.testing.assert_close(other.flip(1), one)


@pytest.mark.parametrize("antialias", [False, True])
def test_a_grid_of_one_column(antialias):
    rows = torch.randn(4, 1, 3)
    column, pair = (
        interpolate_positions(rows.expand(4, old, 3).reshape(-1, 3), (4, old), (9, new), antialias=antialias)
        for old, new in ((1, 1), (3, 2))
    )
    torch.testing.assert_close(column, pair.reshape(9, 2, 3)[:, 0])


def test_positions_on_the_same_grid_are_unchanged():
    positions = torch.randn(20, 3)
    assert interpolate_positions(positions, (4, 5), (4, 5)) is positions
    with pytest.raises(ValueError, match=r"20 positions do not fill a grid of 4×4"):
        interpolate_positions(positions, (4, 4), (5, 5))


def test_interpolated_positions_get_gradients():
    model = make().train()
    model(torch.randn(1, 2, 15, 9)).sum().backward()
    assert model.positions.grad.shape == (17, 40)
    assert (model.positions.grad.abs().sum(-1) > 0).all()


def test_sine_cosine_positions_are_most_similar_to_their_neighbors():
    """All have the same norm, and each is most similar to itself and then to its neighbors."""
    waves = sine_cosine_positions((5, 6), 64)
    torch.testing.assert_close(waves.square().sum(-1), torch.full((30,), 32.0))
    similarity = (waves @ waves.T).reshape(5, 6, 5, 6)
    center = similarity[2, 3]
    assert center.argmax() == 2 * 6 + 3
    assert center[2, 3] > center[2, 4] > center[2, 5] and center[2, 3] > center[3, 3] > center[4, 3]
    assert torch.equal(waves[0, :16], torch.zeros(16)) and torch.equal(waves[0, 16:32], torch.ones(16))
    # The first half encodes the column, the second the row.
    assert torch.equal(waves.reshape(5, 6, 64)[0, :, 32:], waves.reshape(5, 6, 64)[0, :1, 32:].expand(6, 32))


# ── The whole model ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "prefix"),
    [
        ({}, 1),
        ({"registers": 3}, 4),
        ({"class_token": False, "pooling": "mean"}, 0),
        ({"class_token": False, "pooling": "attention", "registers": 2}, 2),
        ({"swiglu": True, "layer_scale": 0.1, "qkv_bias": False, "mask_token": True}, 1),
        ({"image_size": (6, 15), "pooler": True, "classes": 0}, 1),
    ],
)
def test_shapes(changes, prefix):
    model = make(**changes)
    images = torch.randn(2, 2, 9, 6)
    assert model.config.prefix_tokens == prefix
    assert model.features(images).shape == (2, prefix + 6, 40)
    assert model(images).shape == (2, changes.get("classes", 7) or 40)
    maps = model.attention_maps(images)
    assert [m.shape for m in maps] == [(2, 5, prefix + 6, prefix + 6)] * 2
    for m in maps:
        torch.testing.assert_close(m.sum(-1), torch.ones_like(m.sum(-1)))


def test_attention_maps_are_those_of_the_forward_pass():
    """With identity layers for values and output, attention's output is map · tokens."""
    model = make(positions="rotary", heads=1, registers=1, depth=1)
    attention = model.blocks[0].attention
    with torch.no_grad():
        for linear in (attention.value, attention.output):
            linear.weight.copy_(torch.eye(40))
            linear.bias.zero_()
    images = torch.randn(2, 2, 12, 12)
    (probabilities,) = model.attention_maps(images)
    tokens = model.blocks[0].attention_norm(model.add_prefix(model.embed_patches(images)))
    angles = model.angles(patch_coordinates((4, 4))[None])
    torch.testing.assert_close(attention(tokens, angles=angles), probabilities[:, 0] @ tokens, atol=1e-4, rtol=0)


def test_registers_follow_the_class_token_and_have_no_position():
    model = make(registers=2)
    patches = torch.randn(1, 16, 40)
    tokens = model.add_prefix(patches)
    assert torch.equal(tokens[0, 0], model.class_token + model.positions[0])
    assert torch.equal(tokens[0, 1:3], model.registers)
    assert torch.equal(tokens[:, 3:], patches)


def test_mean_pooling_covers_patches_only():
    model = make(pooling="mean", registers=2, classes=0)
    tokens = torch.randn(2, 3 + 5, 40)
    torch.testing.assert_close(model.pool(tokens), tokens[:, 3:].mean(1))


def test_attention_pooling_follows_its_formula():
    pooling = redraw_weights(AttentionPooling(replace(SMALL, width=8, heads=2, mlp_dim=12)))
    patches = torch.randn(3, 5, 8)
    query, key = (getattr(pooling.attention, name) for name in ("query", "key"))
    q = query(pooling.probe).reshape(2, 4)
    k = key(patches).reshape(3, 5, 2, 4)
    v = pooling.attention.value(patches).reshape(3, 5, 2, 4)
    weights = (torch.einsum("hd,bnhd->bhn", q, k) / 2).softmax(-1)
    attended = pooling.attention.output(torch.einsum("bhn,bnhd->bhd", weights, v).reshape(3, 8))
    expected = attended + pooling.mlp(pooling.norm(attended))
    torch.testing.assert_close(pooling(patches), expected)


def test_drop_path_grows_with_depth_and_is_off_in_evaluation():
    model = make(depth=3, drop_path=0.6)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0.0, 0.3, 0.6])
    images = torch.randn(8, 2, 12, 12)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


def test_every_parameter_gets_a_gradient():
    for changes in ({"registers": 2}, {"pooling": "attention", "positions": "rotary", "swiglu": True}):
        model = VisionTransformer(replace(SMALL, layer_scale=0.1, **changes))
        F.cross_entropy(model(torch.randn(4, 2, 12, 12)), torch.arange(4)).backward()
        constant = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        # A bias of the keys adds the same score to every key, which does not change the softmax. The class token of an
        # attention-pooled model gets its gradient through the patches, which attend to it.
        assert [name for name in constant if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("changes", [{"registers": 1}, {"positions": "rotary", "pooling": "attention"}])
def test_bfloat16_autocast(changes):
    model, images = make(**changes), torch.randn(2, 2, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
        F.cross_entropy(logits.float(), torch.tensor([0, 3])).backward()
        # The residual stream stays in float32: sixteen bits would lose small updates of large values.
        assert model.add_prefix(model.embed_patches(images)).dtype == torch.float32
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(images), atol=0.3, rtol=0.1)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_autoencoder_under_bfloat16_autocast():
    model, images, noise = make_autoencoder(registers=1), torch.randn(2, 2, 12, 12), torch.rand(2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = model(images, noise)
        loss.backward()
        model.reconstruct(images, noise)
    torch.testing.assert_close(loss, model(images, noise)[0], rtol=0.05, atol=0)


def test_compiles_without_graph_breaks_and_explains_invalid_images():
    """In a separate process, without the tests' shape checks, which torch.compile cannot trace."""
    program = """
import torch
from lessons.lesson_01_vit.model import *
parts = dict(image_size=8, patch_size=4, channels=1, width=16, depth=1, heads=2, mlp_dim=24, classes=3, registers=1)
images, noise = torch.randn(2, 1, 12, 8), torch.rand(2, 6)
model = VisionTransformer(VisionTransformerConfig(**parts))
rotary = VisionTransformerConfig(**parts, positions="rotary")
autoencoder = MaskedAutoencoder(MaskedAutoencoderConfig(rotary, 16, 1, 2))
for whole, inputs, of in ((model, (images,), lambda x: x), (autoencoder, (images, noise), lambda x: x[0])):
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(of(compiled(*inputs)), of(whole(*inputs)))
    of(compiled(*inputs)).sum().backward()
for shape in ((1, 8, 8), (2, 3, 8, 8), (2, 1, 8, 9), (2, 1, 0, 8)):
    try:
        model(torch.zeros(shape))
    except ValueError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    shape = "expected [batch, 1, height, width]; check the order of the axes and the number of channels"
    assert run.stdout.splitlines() == [
        f"images have shape [1, 8, 8], {shape}",
        f"images have shape [2, 3, 8, 8], {shape}",
        "image 8×9 does not divide into patches of 4; resize or pad it first",
        "image 0×8 does not divide into patches of 4; resize or pad it first",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 2}, "2×2 is smaller than patch_size 3"),
        ({"heads": 3}, "width 40 does not divide into 3 heads"),
        ({"positions": "rotary", "heads": 20}, "multiple of 4, got 2"),
        ({"positions": "sine"}, "positions is 'sine', expected one of learned, sine-cosine, rotary, none"),
        ({"class_token": False}, "pool 'mean' instead"),
        ({"pooler": True, "pooling": "mean"}, "tanh pooler reads the class token"),
        ({"drop_path": 1.0}, "below 1"),
        ({"labels": ("cat", "dog")}, "2 labels were given for 7 classes"),
    ],
)
def test_invalid_configs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_what_fills_no_patch_of_the_models_own_image_size_is_left_out():
    model = make(image_size=(14, 13)).eval()
    images = torch.randn(1, 2, 14, 13)
    assert model.config.grid == (4, 4)
    with torch.no_grad():
        assert torch.equal(model.features(images), model.features(images[..., :12, :12]))
    with pytest.raises(ValueError, match="image 13×14 does not divide into patches of 3"):
        model.features(torch.randn(1, 2, 13, 14))


def test_masking_patches_needs_a_mask_token():
    with pytest.raises(ValueError, match="mask_token=True"):
        make().features(torch.randn(1, 2, 12, 12), torch.ones(1, 16, dtype=torch.bool))


def test_published_parameter_count():
    with torch.device("meta"):
        model = VisionTransformer(VisionTransformerConfig(classes=1000))
    assert sum(p.numel() for p in model.parameters()) == 86_567_656


# ── Masked autoencoder ────────────────────────────────────────────────────────────────────────────────────────────────


def make_autoencoder(**changes):
    encoder = replace(SMALL, classes=0, **changes)
    return redraw_weights(MaskedAutoencoder(MaskedAutoencoderConfig(encoder, 24, 2, 3)))


@pytest.mark.parametrize(("ratio", "count"), [(0.75, 4), (0.25, 12), (0.5, 8), (0.9, 1), (0.99, 1), (0.3, 11)])
def test_random_masking(ratio, count):
    noise = torch.rand(5, 16)
    visible, masked = random_masking(noise, ratio)
    assert visible.shape == (5, count)
    assert masked.sum(1).tolist() == [16 - count] * 5
    for row in range(5):
        assert visible[row].tolist() == sorted(noise[row].argsort()[:count].tolist())
        assert not masked[row, visible[row]].any()
    assert len({tuple(row.tolist()) for row in visible}) > 1


@pytest.mark.parametrize("ratio", [0.0, 1.0, 7.5])
def test_a_ratio_that_masks_nothing_or_everything_is_refused(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        random_masking(torch.rand(2, 16), ratio)


@pytest.mark.parametrize("changes", [{}, {"positions": "rotary"}, {"registers": 2}])
def test_the_encoder_does_not_read_masked_pixels(changes):
    model = make_autoencoder(**changes)
    images, noise = torch.randn(3, 2, 12, 15), torch.rand(3, 20)
    visible, masked = random_masking(noise, 0.75)
    patches = patchify(images, 3)
    replaced = torch.where(masked[..., None], torch.randn_like(patches), patches)
    changed = unpatchify(replaced, (4, 5), 3)
    with torch.no_grad():
        assert torch.equal(model.encode(images, visible), model.encode(changed, visible))
        loss, predictions, mask = model(images, noise)
        other_loss, other_predictions, _ = model(changed, noise)
        assert torch.equal(mask, masked)
        assert torch.equal(predictions, other_predictions)
        assert loss != other_loss
        # Every visible pixel has an effect.
        modified = images.clone()
        row, column = divmod(visible[0, 0].item(), 5)
        modified[0, 1, 3 * row + 2, 3 * column] += 1
        assert (model.encode(modified, visible) - model.encode(images, visible)).abs().max() > 1e-3


def test_the_decoder_places_every_token_at_its_position():
    """Without decoder blocks, each prediction depends on its own token and position only."""
    model = make_autoencoder()
    model.decoder_blocks = torch.nn.ModuleList()
    visible = torch.tensor([[1, 4, 7], [0, 2, 15]])
    tokens = torch.randn(2, 1 + 3, 40)
    predictions = model.decode(tokens, visible, (4, 4))
    waves = sine_cosine_positions((4, 4), 24)
    for row in range(2):
        for index in range(16):
            if index in visible[row]:
                token = model.decoder_embedding(tokens[row, 1 + visible[row].tolist().index(index)])
            else:
                token = model.mask_token
            expected = model.predict(model.decoder_norm(token + waves[index]))
            torch.testing.assert_close(predictions[row, index], expected, atol=1e-5, rtol=0)


def test_masked_loss_by_hand():
    patches = torch.tensor([[[1.0, 3.0], [0.0, 8.0], [5.0, 5.0]]])
    predictions = torch.tensor([[[0.0, 2.0], [9.0, 9.0], [1.0, 0.0]]])
    masked = torch.tensor([[True, False, True]])
    # Without normalization: (1 + 1)/2 and (16 + 25)/2, averaged.
    assert masked_loss(predictions, patches, masked, normalize=False).item() == pytest.approx((1 + 20.5) / 2)
    # Normalized targets are ∓1/√2 for the first patch (unbiased variance 2) and 0 for the flat one.
    half = 2**-0.5
    expected = (((0 + half) ** 2 + (2 - half) ** 2) / 2 + (1 + 0) / 2) / 2
    assert masked_loss(predictions, patches, masked).item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_leaves_visible_patches_unchanged():
    model = make_autoencoder()
    images, noise = torch.randn(2, 2, 12, 12), torch.rand(2, 16)
    grayed, completed = model.reconstruct(images, noise)
    _, masked = random_masking(noise, 0.75)
    for reconstruction in (grayed, completed):
        assert torch.equal(patchify(reconstruction, 3)[~masked], patchify(images, 3)[~masked])
    assert (patchify(grayed, 3)[masked] == images.mean()).all()
    assert (patchify(completed, 3)[masked] - patchify(images, 3)[masked]).abs().max() > 0.01


def test_an_autoencoder_learns_to_reconstruct():
    """For stripes, half of an image determines the other half: the loss must fall far below that of the mean."""
    encoder = VisionTransformerConfig(image_size=8, patch_size=2, channels=1, width=32, depth=2, heads=4, mlp_dim=64)
    model = MaskedAutoencoder(MaskedAutoencoderConfig(encoder, 32, 1, 4, mask_ratio=0.5, normalize=False))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        images = torch.randn(32, 1, 8, 1).expand(32, 1, 8, 8)
        loss, _, _ = model(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.8


# ── Distillation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hard_distillation_by_hand():
    class_logits, distillation_logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    teacher = torch.tensor([[0.1, 0.9]], requires_grad=True)
    loss = hard_distillation_loss(class_logits, distillation_logits, torch.tensor([0]), teacher)
    log = torch.tensor
    expected = 0.5 * log(1 + 2.718281828**-2.0).log() + 0.5 * log(1 + 2.718281828**-1.0).log()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_distilled_model_has_two_heads_and_returns_their_mean():
    config = replace(SMALL, distillation_token=True, registers=1)
    model = redraw_weights(VisionTransformer(config))
    images = torch.randn(3, 2, 12, 12)
    tokens = model.features(images)
    assert tokens.shape == (3, 2 + 1 + 16, 40)
    assert model.positions.shape == (18, 40)
    class_logits, distillation_logits = model.head_logits(images)
    torch.testing.assert_close(class_logits, model.head(tokens[:, 0]))
    torch.testing.assert_close(distillation_logits, model.distillation_head(tokens[:, 1]))
    torch.testing.assert_close(model(images), (class_logits + distillation_logits) / 2)
    with pytest.raises(ValueError, match="distillation_token=True"):
        make().head_logits(images)
    with pytest.raises(ValueError, match="expected pooling='class'"):
        replace(config, pooling="mean")


def test_the_teacher_is_translation_equivariant():
    """An image shifted by the stride of the pooling layers gives shifted features, and the same logits."""
    teacher = ConvolutionalTeacher(channels=1, classes=10, width=8).eval()
    assert teacher(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    image = torch.zeros(1, 1, 64, 64)
    image[..., 24:32, 24:32] = torch.randn(8, 8)
    shifted = image.roll((4, 8), dims=(2, 3))
    with torch.no_grad():
        torch.testing.assert_close(teacher(shifted), teacher(image), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(teacher.stages(shifted), teacher.stages(image).roll((1, 2), dims=(2, 3)))
