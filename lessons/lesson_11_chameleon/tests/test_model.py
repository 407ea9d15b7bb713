"""One vocabulary, QK-norm, norm placement, losses and training from scratch, without the published class."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model import next_token_loss
from lessons.lesson_05_llava.model import splice_images
from lessons.lesson_11_chameleon.model import (
    BlockDesign,
    Chameleon,
    ChameleonConfig,
    ImageVocabulary,
    VQConfig,
    add_image_names,
    chameleon_decoder,
    logit_bounds,
    measure_magnitudes,
    mixed_modal_loss,
    residual_bounds,
    splice_codes,
)
from lessons.lesson_11_chameleon.model.losses import z_losses
from lessons.lesson_11_chameleon.model.vocabulary import code_name, codes_of_names, codes_of_token_ids
from lessons.lesson_11_chameleon.tests.small_models import random_images, shuffled_names, small_config, small_model
from shared.testing import assert_loss_adds_up, redraw_weights
from shared.transformer import DecoderConfig, Sampling, YarnScaling

# ── One vocabulary ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_and_codes_are_inverse():
    assert code_name(8191) == "IMGIMGIBJBZ" and code_name(0) == "IMGIMGAZ"
    codes = [0, 9, 10, 305, 8191, 99_999]
    assert codes_of_names([code_name(code) for code in codes]).tolist() == codes
    with pytest.raises(ValueError, match="code -1 is negative"):
        code_name(-1)
    for name in ("IMGIMGZ", "IMGIMGKZ", "IMGIMGA", "IMGIMGABZZ"):
        with pytest.raises(ValueError, match=f"image token {name!r} names no code"):
            codes_of_names([name])


def test_images_come_after_the_text():
    names = add_image_names({"a": 3, "b": 0}, 2)
    assert names == {"a": 3, "b": 0, "<image>": 4, "<racm3:break>": 5, "<eoss>": 6, "IMGIMGAZ": 7, "IMGIMGBZ": 8}
    assert min(add_image_names({}, 1).values()) == 0
    with pytest.raises(ValueError, match="already has IMGIMGBZ; images need names of their own"):
        add_image_names({"IMGIMGBZ": 0}, 2)


def test_token_ids_and_codes_are_inverse():
    vocabulary = ImageVocabulary.from_names(shuffled_names(), 24, 4, 53)
    assert list(vocabulary.code_token_ids) != sorted(vocabulary.code_token_ids)
    codes = torch.arange(24).reshape(6, 4)
    token_ids = vocabulary.image_token_ids(codes)
    assert (token_ids[:, 0] == vocabulary.begin).all() and (token_ids[:, -1] == vocabulary.end).all()
    lookup = torch.tensor(vocabulary.code_token_ids)
    back = codes_of_token_ids(token_ids, lookup, vocabulary.vocab_size)
    assert torch.equal(back[:, 1:-1], codes) and (back[:, [0, -1]] == -1).all()
    assert torch.equal(vocabulary.is_code()[token_ids], back >= 0)
    assert vocabulary.is_code().sum() == vocabulary.codebook_size == 24


def test_codes_in_place_of_placeholders_are_embeddings_in_place_of_placeholders():
    """Early fusion: an image token is a row of the token embedding, and no vector of a vision encoder."""
    model = small_model()
    vocabulary = model.config.vocabulary
    token_ids = torch.tensor([[1, vocabulary.begin, *[vocabulary.placeholder] * 4, vocabulary.end, 2]])
    codes = torch.tensor([[3, 0, 7, 3]])
    filled = splice_codes(token_ids, codes, model.code_token_ids, vocabulary.placeholder)
    embedding = model.language_model.embedding
    vectors = embedding(model.code_token_ids[codes])[0]
    expected = splice_images(embedding(token_ids), token_ids == vocabulary.placeholder, vectors)
    assert torch.equal(embedding(filled), expected)


def test_images_that_do_not_fit_their_prompt():
    model = small_model()
    vocabulary, images = model.config.vocabulary, random_images(2, 8, 1)
    prompt = torch.tensor([[1, *[vocabulary.placeholder] * 4]])
    with pytest.raises(ValueError, match="4 image placeholders, but 2 images have 8 codes; write 4 placeholders"):
        model(prompt, images)
    with pytest.raises(ValueError, match=r"images have shape \[1, 8, 9\]; expected \[1, 8, 8\]"):
        model(prompt, random_images(1, 8, 1).new_zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match=r"images have shape \[3, 8, 8\]"):
        model(prompt, random_images(1, 8, 3))
    with pytest.raises(ValueError, match="image codes are 0 to 24; the codebook has 0 to 23"):
        splice_codes(prompt, torch.tensor([[0, 24, 1, 1]]), model.code_token_ids, vocabulary.placeholder)
    with pytest.raises(ValueError, match="image codes are -1 to 3"):
        vocabulary.image_token_ids(torch.tensor([[0, -1, 3, 3]]))
    with pytest.raises(ValueError, match="an image has 3 codes; expected 4"):
        vocabulary.image_token_ids(torch.tensor([[0, 1, 3]]))
    names = {name: token_id for name, token_id in model.config.vocabulary_map.items() if not name.startswith("<")}
    bare = Chameleon(replace(model.config, vocabulary_map=names))
    with pytest.raises(ValueError, match="vocabulary_map has no <image>"):
        bare(prompt, images)
    with pytest.raises(ValueError, match="no <racm3:break> or no <eoss>"):
        bare.config.vocabulary.markers()


# ── One causal sequence ───────────────────────────────────────────────────────────────────────────────────────────────


def mixed_rows(vocabulary, seed=0):
    """Return two rows of 14 tokens, with an image each."""
    generator = torch.Generator().manual_seed(seed)
    images = vocabulary.image_token_ids(torch.randint(vocabulary.codebook_size, (2, 4), generator=generator))
    text = torch.randint(20, (2, 8), generator=generator)
    return torch.cat([text[:, :3], images, text[:, 3:]], dim=1)


@pytest.mark.parametrize("norms_after", [False, True])
@torch.no_grad()
def test_later_tokens_change_nothing_within_images_too(norms_after):
    model = small_model(norms_after=norms_after)
    token_ids = mixed_rows(model.config.vocabulary)
    before = model(token_ids, text_only=False)
    for place in (5, 9):  # within the image, and after it
        changed = token_ids.clone()
        changed[:, place] = (changed[:, place] + 1) % 5
        after = model(changed, text_only=False)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert (after[:, place:] - before[:, place:]).abs().amax(dim=2).min() > 1e-4


@pytest.mark.parametrize("design", [{}, {"norms_after": True}, {"qk_norm": False, "attention_bias": True}])
@torch.no_grad()
def test_packing_and_the_cache_change_nothing(design):
    model = small_model(**design)
    token_ids = mixed_rows(model.config.vocabulary)
    expected = model(token_ids)
    packed = model(token_ids.reshape(1, -1), segments=torch.arange(2).repeat_interleave(14)[None])
    torch.testing.assert_close(packed.reshape(expected.shape), expected)
    cache = model.language_model.new_cache(2, 14)
    parts = [model(token_ids[:, start:end], cache=cache) for start, end in ((0, 6), (6, 7), (7, 14))]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


@torch.no_grad()
def test_codes_are_excluded_from_text():
    model = small_model()
    token_ids = mixed_rows(model.config.vocabulary)
    text, both = model(token_ids), model(token_ids, text_only=False)
    assert torch.equal(text[..., ~model.is_code], both[..., ~model.is_code])
    assert (text[..., model.is_code] == torch.finfo(torch.float32).min).all() and both.abs().max() < 1e3
    half = model.bfloat16()(token_ids)
    assert half.dtype == torch.bfloat16 and (half[..., model.is_code] == torch.finfo(torch.bfloat16).min).all()
    torch.testing.assert_close(half[..., ~model.is_code].float(), text[..., ~model.is_code], atol=0.2, rtol=0.1)


# ── QK-norm and the placement of norms ────────────────────────────────────────────────────────────────────────────────


def scaled(model, factor, *parts):
    """Multiply some weights of every block in place."""
    with torch.no_grad():
        for block in model.language_model.blocks:
            for part in parts:
                block.get_submodule(part).weight.mul_(factor)
    return model


@torch.no_grad()
def test_qk_norm_removes_the_size_of_queries_and_keys():
    rows = mixed_rows(small_config().vocabulary)
    outputs = {}
    for qk_norm in (False, True):
        model = small_model(qk_norm=qk_norm)
        before = measure_magnitudes(model.language_model, rows)
        logits = model(rows, text_only=False)
        scaled(model, 30.0, "attention.query", "attention.key")
        after = measure_magnitudes(model.language_model, rows)
        outputs[qk_norm] = before.attention_logits[0], after.attention_logits[0], model(rows, text_only=False) - logits
    small, large, difference = outputs[True]
    torch.testing.assert_close(large, small, rtol=0.02, atol=0)
    assert difference.abs().max() < 0.05
    small, large, difference = outputs[False]
    torch.testing.assert_close(large, 900 * small, rtol=1e-3, atol=0)
    assert difference.abs().max() > 0.5


@pytest.mark.parametrize("norms_after", [False, True])
@torch.no_grad()
def test_attention_logits_have_a_bound_with_qk_norm(norms_after):
    for seed in range(5):
        torch.manual_seed(seed)
        model = redraw_weights(Chameleon(small_config(norms_after=norms_after)))
        scaled(model, 50.0, "attention.query", "attention.key", "attention.value")
        measured = measure_magnitudes(model.language_model, mixed_rows(model.config.vocabulary, seed))
        for logit, block in zip(measured.attention_logits, model.language_model.blocks, strict=True):
            norms = (block.attention.query_norm, block.attention.key_norm)
            bound = logit_bounds(*norms[0].per_head, *norms[1].per_head).max()
            assert bound / 20 < logit <= bound


def test_the_bound_is_reached_by_equal_vectors():
    """Two values of equal size have no mean: they are normalized to ±1, and q · k / √2 is √2."""
    gain, bias = torch.ones(1, 2), torch.zeros(1, 2)
    vector = F.layer_norm(torch.tensor([1e3, -1e3]), (2,))
    bound = logit_bounds(gain, bias, gain, bias)
    torch.testing.assert_close(bound[0], vector @ vector / math.sqrt(2))
    assert bound[0] == pytest.approx(math.sqrt(2))


@torch.no_grad()
def test_the_residual_stream_has_a_bound_with_norms_after_the_parts():
    token_ids = mixed_rows(small_config().vocabulary)
    for norms_after in (True, False):
        model = small_model(norms_after=norms_after)
        before = measure_magnitudes(model.language_model, token_ids).residual
        scaled(model, 1000.0, "attention.output", "mlp.down")
        residual = measure_magnitudes(model.language_model, token_ids).residual
        if not norms_after:
            assert residual[-1] > 100 * before[-1]
            continue
        blocks = model.language_model.blocks
        gains = (torch.stack([getattr(b, f"{part}_post_norm").weight for b in blocks]) for part in ("attention", "mlp"))
        bounds = residual_bounds(residual[0], *gains)
        assert bounds.shape == (3,) and (residual <= bounds * (1 + 1e-6)).all() and residual[-1] > bounds[-1] / 10


@torch.no_grad()
def test_magnitudes_are_those_of_the_forward_pass():
    model = small_model().language_model.train()
    token_ids = mixed_rows(small_config().vocabulary)
    segments = torch.zeros_like(token_ids)
    segments[0, 10:] = -1
    measured = measure_magnitudes(model, token_ids, segments)
    assert model.training
    alone = [measure_magnitudes(model, token_ids[:1, :10]), measure_magnitudes(model, token_ids[1:])]
    for name in ("attention_logits", "residual", "log_z"):
        expected = torch.stack([getattr(each, name) for each in alone]).amax(dim=0)
        torch.testing.assert_close(getattr(measured, name), expected)
    x = model.embedding(token_ids[1:])
    torch.testing.assert_close(alone[1].residual[0], x.square().mean(dim=-1).amax().sqrt())
    torch.testing.assert_close(alone[1].log_z, model(token_ids[1:]).logsumexp(dim=-1).abs().amax())
    # The softmax of a row's logits gives its largest attention weight.
    block = model.blocks[0]
    _, angles, mask = model.block_inputs(x)
    scores = block.attention.scores(block.attention_norm(x), mask=mask, angles=angles)
    weights = block.attention.weights(block.attention_norm(x), mask=mask, angles=angles)
    torch.testing.assert_close(scores.softmax(dim=-1), weights)
    assert torch.isneginf(scores[0, :, 0, 1:]).all() and scores.amax() == alone[1].attention_logits[0]


def test_dropout_acts_on_both_parts_in_training_only():
    torch.manual_seed(0)
    config = small_config(dropout=0.5)
    decoder = chameleon_decoder(config.language, config.design)
    token_ids = mixed_rows(config.vocabulary)
    assert not torch.equal(decoder(token_ids), decoder(token_ids))
    block = decoder.blocks[0]
    assert block.attention_dropout == block.mlp.dropout == 0.5
    decoder.eval()
    assert torch.equal(decoder(token_ids), decoder(token_ids))
    x = torch.randn(1, 400, 16)
    dropped = block.mlp.train()(x) == 0
    assert 0.4 < dropped.float().mean() < 0.6


# ── Losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cross_entropy_ignores_a_shift_of_all_logits_and_the_z_loss_does_not():
    model = small_model()
    token_ids = mixed_rows(model.config.vocabulary)
    segments = torch.zeros_like(token_ids)
    logits = model(token_ids, text_only=False)
    loss, parts = mixed_modal_loss(logits, token_ids, segments, z_weight=0.1)
    torch.testing.assert_close(parts["cross_entropy"].mean(), next_token_loss(logits, token_ids, segments))
    torch.testing.assert_close(loss.mean(), parts["cross_entropy"].mean() + 0.1 * parts["z_loss"].mean())
    assert mixed_modal_loss(logits, token_ids, segments, z_weight=0.0)[0].mean() == parts["cross_entropy"].mean()
    assert loss.terms == 26
    _, shifted = mixed_modal_loss(logits + 7.0, token_ids, segments, z_weight=0.1)
    torch.testing.assert_close(shifted["cross_entropy"].mean(), parts["cross_entropy"].mean())
    expected = (logits.logsumexp(dim=-1)[:, :-1] + 7.0).square().mean()
    torch.testing.assert_close(shifted["z_loss"].mean(), expected)


def test_the_z_loss_pulls_log_z_to_zero():
    logits = torch.tensor([[3.0, 1.0, -2.0], [-9.0, -8.0, -7.0]], requires_grad=True)
    z_losses(logits).sum().backward()
    log_z = logits.detach().logsumexp(dim=-1, keepdim=True)
    torch.testing.assert_close(logits.grad, 2 * log_z * logits.detach().softmax(dim=-1))
    assert logits.grad[0].min() > 0 > logits.grad[1].max()
    assert z_losses(torch.full((1, 4), -math.log(4))).abs() < 1e-12


def test_losses_of_rows_add_up_and_the_mask_selects_targets():
    model = small_model()
    vocabulary = model.config.vocabulary
    token_ids = mixed_rows(vocabulary)
    segments = torch.zeros_like(token_ids)
    segments[0, 9:] = -1
    logits = model(token_ids, text_only=False).detach()
    assert_loss_adds_up(lambda rows: mixed_modal_loss(logits[rows], token_ids[rows], segments[rows], z_weight=0.5), 2)
    is_code = vocabulary.is_code()[token_ids]
    loss, parts = mixed_modal_loss(logits, token_ids, segments, loss_mask=is_code)
    assert loss.terms == 8
    chosen = logits[:, :-1][is_code[:, 1:]]
    torch.testing.assert_close(parts["cross_entropy"].mean(), F.cross_entropy(chosen, token_ids[is_code]))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"z_weight is {wrong}; expected 0"):
            mixed_modal_loss(logits, token_ids, segments, z_weight=wrong)


# ── Training from scratch ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("norms_after", [False, True])
def test_one_model_reads_and_draws(norms_after):
    """Rows are "draw c" and an image, or an image and its "name c": the codes of class c are 3c, 3c + 1 and 3c + 2."""
    torch.manual_seed(0)
    config = small_config(codes=9, norms_after=norms_after)
    model = Chameleon(replace(config, language=replace(config.language, width=32, mlp_dim=48)))
    vocabulary, generator = config.vocabulary, torch.Generator().manual_seed(1)
    draw, name = 10, 11

    def batch(size):
        classes = torch.arange(size) % 3
        codes = 3 * classes[:, None] + torch.randint(3, (size, 4), generator=generator)
        images = vocabulary.image_token_ids(codes)
        text = classes[:, None]
        drawn = torch.cat([torch.full_like(text, draw), text, images], dim=1)
        named = torch.cat([images, torch.full_like(text, name), text], dim=1)
        return torch.cat([drawn, named]), classes

    optimizer = torch.optim.AdamW(model.language_model.parameters(), 1e-2)
    for _ in range(60):
        token_ids, _ = batch(24)
        logits = model(token_ids, text_only=False)
        loss, _ = mixed_modal_loss(logits, token_ids, torch.zeros_like(token_ids))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    token_ids, classes = batch(24)
    prompts = list(token_ids[24:, :7])
    answers = model.generate(prompts, Sampling(max_new_tokens=1), text_only=True)
    assert (torch.cat(answers) == classes).float().mean() > 0.95
    sampling = Sampling(max_new_tokens=6, temperature=1.0)
    drawings = torch.stack(model.generate(list(token_ids[:24, :2]), sampling, generator=generator))
    lookup = torch.tensor(vocabulary.code_token_ids)
    codes = codes_of_token_ids(drawings[:, 1:5], lookup, vocabulary.vocab_size)
    assert (codes // 3 == classes[:, None]).float().mean() > 0.9
    assert len({tuple(row) for row in codes.tolist()}) > 10


# ── Configs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VQConfig(width=33), "do not divide into 32 groups"),
        (lambda: VQConfig(multipliers=()), "expected at least one multiplier"),
        (lambda: VQConfig(image_size=15), "an image of 15 × 15 pixels cannot be halved 4 times"),
        (lambda: BlockDesign(dropout=1.0), "dropout is 1.0"),
        (lambda: BlockDesign(dropout=float("nan")), "dropout is nan"),
        (
            lambda: ChameleonConfig(DecoderConfig(9, 8, 1, 2, 2, 8, qkv_bias=True), BlockDesign(), VQConfig(), {}),
            "qkv_bias is True; Chameleon's decoder has only the default False",
        ),
        (
            lambda: chameleon_decoder(DecoderConfig(9, 8, 1, 2, 2, 8, attention_softcap=5.0), BlockDesign()),
            "attention_softcap is 5.0; Chameleon's decoder has only the default None",
        ),
        (
            lambda: chameleon_decoder(DecoderConfig(9, 8, 1, 2, 2, 8, activation="relu"), BlockDesign()),
            "activation is 'relu'",
        ),
        (
            lambda: ChameleonConfig(DecoderConfig(9, 8, 1, 2, 2, 8), BlockDesign(), VQConfig(), {"a": 0}),
            "0 names of image tokens .* the codebook has 8192 vectors",
        ),
    ],
)
def test_settings_that_exclude_each_other(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_yarn_scales_the_scores_of_normalized_heads():
    config = replace(small_config().language, rotary_scaling=YarnScaling(factor=8.0, original_context=16))
    plain = chameleon_decoder(small_config().language, BlockDesign()).blocks[0].attention
    scaled_attention = chameleon_decoder(config, BlockDesign()).blocks[0].attention
    scaled_attention.load_state_dict(plain.state_dict())
    x = torch.randn(1, 5, 16)
    ratio = scaled_attention.scores(x) / plain.scores(x)
    torch.testing.assert_close(ratio, torch.full_like(ratio, config.rotary_scaling.magnitude**2))
