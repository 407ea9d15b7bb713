"""V2PE, prompts, the router and its training, without the published class."""

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_10_internvl.model import (
    STEPS,
    InternVL,
    InternVLConfig,
    Prompt,
    VisionConfig,
    choose_step,
    draw_steps,
    expand_images,
    token_steps,
    v2pe_positions,
)
from lessons.lesson_10_internvl.model.positions import chosen_steps, largest_position
from lessons.lesson_10_internvl.model.projector import pixel_unshuffle
from lessons.lesson_10_internvl.model.router import RatioThreshold, consistency_losses, router_loss, router_targets
from shared.errors import CourseError
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig, Sampling

IMAGE = 9
VISION = VisionConfig(image_size=8, patch_size=2, channels=1, width=8, depth=1, heads=2, mlp_dim=8)
LANGUAGE = DecoderConfig(vocab_size=12, width=16, depth=2, heads=2, kv_heads=1, mlp_dim=16, qkv_bias=True)


def small_model(**changes):
    torch.manual_seed(0)
    return redraw_weights(InternVL(InternVLConfig(VISION, LANGUAGE, image_token_id=IMAGE, **changes)))


def tiles(count, seed=0):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def row(*parts):
    """Return one row: text is a token id, an image is the tuple of its number of tokens."""
    flat = [token for part in parts for token in ([IMAGE] * part[0] if isinstance(part, tuple) else [part])]
    return torch.tensor([flat])


# ── V2PE ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_are_exact_sums_of_steps():
    """An image of 256 tokens takes 256 δ positions: a whole number for every δ."""
    is_visual = torch.tensor([[False] * 3 + [True] * 256 + [False] * 2 + [True] * 256 * 40 + [False]])
    for step in STEPS:
        positions = v2pe_positions(token_steps(is_visual, torch.tensor([step, 1 / 256])))
        assert positions[0, 259] == 3 + 256 * step
        assert positions[0, -1] == 5 + 256 * step + 40
        assert largest_position(3, 256, step) == positions[0, 258]


def test_step_1_is_ordinary_rotary_encoding():
    model = small_model()
    token_ids, images = row(1, (4,), 2, (8,), 3), tiles(3)
    with torch.no_grad():
        ordinary = model(token_ids, images)
        assert torch.equal(model(token_ids, images, torch.ones(2)), ordinary)
        prompt = model.prompt(token_ids, model.tile_encoder(images).embeddings)
        expected = model.language_model(embeddings=prompt.embeddings)
    assert prompt.positions.tolist() == [list(range(15))]
    torch.testing.assert_close(ordinary, expected)


def test_only_distances_matter():
    """Text before all images moves every position, which rotary encoding does not notice; δ it does."""
    model = small_model()
    images, outputs = tiles(1), []
    with torch.no_grad():
        tokens = model.tile_encoder(images).embeddings
        for shift, step in ((0.0, 0.25), (7.5, 0.25), (0.0, 0.5)):
            prompt = model.prompt(row(1, (4,), 2, 3), tokens, torch.tensor([step]))
            moved = Prompt(prompt.embeddings, prompt.positions + shift, prompt.lengths)
            outputs.append(model.hidden_states(embeddings=prompt.embeddings, prompt=moved))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=0)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-2


def test_tokens_after_the_prompt_count_on_in_whole_steps():
    prompt = small_model().prompt(row(1, (4,), 2), torch.zeros(4, 16), torch.tensor([0.25]))
    assert prompt.positions.tolist() == [[0, 0.25, 0.5, 0.75, 1, 2]]
    places = torch.tensor([[0, 4, 5, 6, 9]])
    assert prompt.positions_at(places).tolist() == [[0, 1, 2, 3, 6]]
    longer = Prompt.stack([prompt, Prompt(torch.zeros(1, 8, 16), torch.arange(8.0)[None], torch.tensor([8]))])
    assert longer.positions_at(places).tolist() == [[0, 1, 2, 3, 6], [0, 4, 5, 6, 9]]


def test_answers_do_not_depend_on_the_batch_or_the_cache():
    model = small_model()
    model.language_model.embedding.weight.data.mul_(3)
    tokens = model.tile_encoder(tiles(1)).embeddings.detach()
    prompts = [model.prompt(row(1, (4,), 2, 3), tokens, torch.tensor([1 / 16])), model.prompt(row(5, 6))]
    sampling = Sampling(max_new_tokens=8)
    together = [each.tolist() for each in model.answer(prompts, sampling)]
    assert together == [model.answer([prompt], sampling)[0].tolist() for prompt in prompts]
    assert together == [each.tolist() for each in model.answer(prompts, sampling, use_cache=False)]
    with pytest.raises(ValueError, match="no prompts were given"):
        model.answer([], sampling)
    assert together[0] != together[1] and len(set(together[0])) > 1


def test_the_step_is_chosen_by_the_length():
    assert choose_step(10, 1000, 1010) == 1 and choose_step(10, 1000, 1009) == 1 / 2
    assert choose_step(10, 1000, 14) == 1 / 256 and choose_step(10, 10**6, 14) == 1 / 256
    for text, visual, positions in ((5, 300, 100), (40, 5000, 200)):
        step = choose_step(text, visual, positions)
        assert largest_position(text, visual, step) < positions <= largest_position(text, visual, 2 * step)
    assert chosen_steps([10, 10], [1000, 1000], 1009).tolist() == [1 / 2] * 2


def test_every_step_is_drawn():
    drawn = draw_steps(4000, torch.Generator().manual_seed(0))
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == sorted(STEPS) and len(STEPS) == 9
    assert counts.min() > 350 and counts.max() < 540


def test_steps_and_images_must_fit():
    with pytest.raises(ValueError, match="the text has 2 images for 1 steps"):
        token_steps(torch.tensor([[True, False, True]]), torch.ones(1))
    assert token_steps(torch.zeros(2, 3, dtype=torch.bool), torch.ones(0)).tolist() == [[1.0] * 3] * 2


# ── Tiles ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unshuffling_loses_no_value_and_twice_2_is_4_up_to_order():
    grid = torch.randn(1, 8, 8, 3)
    once = pixel_unshuffle(grid, 4)
    assert sorted(once.flatten().tolist()) == sorted(grid.flatten().tolist())
    twice = pixel_unshuffle(pixel_unshuffle(grid, 2), 2)
    assert torch.equal(twice.sort().values, once.sort().values)
    with pytest.raises(ValueError, match="a grid of 8 × 8 patches does not divide into squares of 3 × 3"):
        pixel_unshuffle(grid, 3)


def test_images_expand_to_their_tokens():
    counts, images = torch.tensor([4, 1, 4, 4]), torch.tensor([1, 3])
    expanded = expand_images(torch.tensor([1, IMAGE, 2, IMAGE]), counts, images, IMAGE)
    assert expanded.tolist() == [1, *[IMAGE] * 4, 2, *[IMAGE] * 9]
    assert expand_images(torch.tensor([1, 2]), counts[:0], images[:0], IMAGE).tolist() == [1, 2]
    with pytest.raises(ValueError, match="the text has 1 image tokens for 2 images"):
        expand_images(torch.tensor([IMAGE]), counts, images, IMAGE)
    with pytest.raises(ValueError, match="the images have 3 tiles of 4"):
        expand_images(torch.tensor([IMAGE]), counts, torch.tensor([3]), IMAGE)


# ── The router ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_router_chooses_a_quarter_of_the_tokens_per_tile():
    model = small_model(router=True)
    encoder, images = model.tile_encoder, tiles(5)
    assert model.config.tile_tokens == 4 and model.config.coarse_tile_tokens == 1
    with torch.no_grad():
        grid = encoder.features(images)
        full = torch.tensor([True, False, True, False, False])
        visual = encoder.visual_tokens(grid, full)
        assert visual.counts.tolist() == [4, 1, 4, 1, 1]
        parts = visual.embeddings.split(visual.counts.tolist())
        for tile, part in enumerate(parts):
            projector = encoder.projector if full[tile] else encoder.coarse_projector
            torch.testing.assert_close(part, projector(grid[tile : tile + 1])[0])
        encoder.router.second.bias.sub_(encoder.router(grid).median() - 1e-3)
        assert encoder.route(grid).tolist() == (torch.sigmoid(encoder.router(grid)) >= 0.5).tolist()
        assert 0 < encoder.route(grid).sum() < 5
        assert torch.equal(encoder(images).counts, torch.where(encoder.route(grid), 4, 1))
        for choice in (torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
            assert encoder.visual_tokens(grid, choice).counts.unique().tolist() == [4 if choice[0] else 1]
        assert encoder.visual_tokens(grid[:0]).embeddings.shape == (0, 16)


def test_a_model_without_a_router_has_all_tokens():
    model = small_model()
    with torch.no_grad():
        assert model.tile_encoder(tiles(2)).counts.tolist() == [4, 4]
        with pytest.raises(ValueError, match="this model cannot compress tiles"):
            model.tile_encoder(tiles(2), torch.tensor([True, False]))


def test_a_router_is_not_written(tmp_path):
    with pytest.raises(CourseError, match="no published class of transformers has a router"):
        small_model(router=True).save_pretrained(tmp_path)


def test_the_threshold_is_a_percentile_of_recent_ratios():
    threshold = RatioThreshold(50.0, window=5)
    assert threshold.update(torch.tensor([1.0, 3.0, 2.0])) == 2
    assert threshold.update(torch.tensor([9.0, 9.0, 9.0])) == 9  # the oldest, 1, has left the window
    ratios = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    value = RatioThreshold(30.0).update(ratios)
    targets, _ = router_targets(ratios, torch.ones(1000), value, eps=0.0)
    assert targets.mean() == pytest.approx(0.7, abs=0.01)
    with pytest.raises(ValueError, match="no loss ratio was given"):
        RatioThreshold().update(torch.zeros(0))
    for wrong in ({"percentile": 101.0}, {"window": 0}):
        with pytest.raises(ValueError, match="percentile is"):
            RatioThreshold(**wrong)


def test_a_row_without_response_tokens_is_refused():
    with pytest.raises(ValueError, match="a row has no response token"):
        consistency_losses(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))


def test_the_router_learns_which_tiles_compression_changes():
    """Half of the tiles are noise and half are flat; the consistency loss at low resolution is larger for noise."""
    model = small_model(router=True)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(80, generator=generator) < 0.5
    images = torch.randn(80, 1, 8, 8, generator=generator) * noisy[:, None, None, None]
    images = images + torch.randn(80, 1, 1, 1, generator=generator)
    coarse = torch.where(noisy, 2.0, 0.1) * (0.5 + torch.rand(80, generator=generator))
    targets, _ = router_targets(coarse, torch.full((80,), 0.1), RatioThreshold(50.0).update(coarse / 0.1))
    with torch.no_grad():
        grid = model.tile_encoder.features(images)
    router = model.tile_encoder.router
    optimizer = torch.optim.AdamW(router.parameters(), 1e-2)
    for _ in range(150):
        loss = router_loss(router(grid[:60]), targets[:60])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.tile_encoder.route(grid[60:]) == (targets[60:] == 1)).float().mean() > 0.8
    assert router_loss(torch.zeros(4), torch.tensor([0.0, 1.0, 1.0, 1.0])) == pytest.approx(0.6931, abs=1e-4)


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("qk_norm", [False, True])
def test_it_learns_to_name_unseen_images(qk_norm):
    """The answer is the brighter half of an image; the steps are drawn anew, and 1/256 is among them."""
    torch.manual_seed(0)
    language = DecoderConfig(vocab_size=12, width=16, depth=1, heads=2, kv_heads=1, mlp_dim=16, qkv_bias=not qk_norm)
    model = InternVL(InternVLConfig(VISION, language, qk_norm=qk_norm, image_token_id=IMAGE))
    generator = torch.Generator().manual_seed(1)

    def batch(size):
        images, top = tiles(size, seed=int(torch.randint(10**6, (1,), generator=generator))), torch.arange(size) % 2
        images[:, :, :4] += 1.5 * top[:, None, None, None]
        images[:, :, 4:] += 1.5 * (1 - top)[:, None, None, None]
        return images, top

    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(150):
        images, top = batch(16)
        logits = model(row((4,), 7).expand(16, -1), images, draw_steps(16, generator))[:, -1]
        optimizer.zero_grad()
        F.cross_entropy(logits, top).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.tile_encoder.parameters())
    images, top = batch(100)
    with torch.no_grad():
        for step in (1.0, 1 / 256):
            logits = model(row((4,), 7).expand(100, -1), images, torch.full((100,), step))[:, -1]
            assert (logits.argmax(dim=-1) == top).float().mean() > 0.9


# ── Configs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unshuffle": 3}, "4 patches along one side do not divide into squares of 3"),
        ({"unshuffle": 4, "router": True}, "do not divide into squares of 8"),
        ({"feature_layer": 2}, "hidden states 0 to 1, or -2 to -1"),
        ({"qk_norm": True}, "qk_norm is Qwen3's and qkv_bias is Qwen2's"),
        ({"projector_activation": "tanh"}, "projector_activation is 'tanh'"),
        ({"language": DecoderConfig(12, 16, 1, 2, 2, 16, positions="learned")}, "learned positions; V2PE needs rotary"),
    ],
)
def test_settings_that_exclude_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        InternVLConfig(**{"vision": VISION, "language": LANGUAGE} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"heads": 3}, "width 1024 does not divide into 3 heads"),
        ({"patch_size": 500}, "image_size 448 is smaller than patch_size 500"),
    ],
)
def test_vision_settings_that_exclude_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**change)
