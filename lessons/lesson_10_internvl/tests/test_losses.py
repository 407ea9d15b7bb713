"""Averaging of the loss, the corpus mixer and MPO: identities, and cases computed by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_10_internvl.model import Corpus, CorpusMixer, averaged_loss
from lessons.lesson_10_internvl.model.loss_averaging import SAMPLE, SQUARE, TOKEN, response_lengths
from lessons.lesson_10_internvl.model.preference import MPOSettings, PreferencePairs, RewardShift, mpo_loss
from shared.finetuning.preference import dpo_loss
from shared.testing import assert_loss_adds_up
from shared.training.loss_sum import add_losses

# ── Averaging ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MASK = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
SEGMENTS = torch.tensor([[0, 0, 0, 0, 0, -1, -1, -1], [0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 0, 0]])
# Response tokens of the samples: 4; 1, 3 and 1; 7.
SAMPLES = [(0, 1, 5), (1, 2, 3), (1, 4, 7), (1, 7, 8), (2, 1, 8)]


def losses():
    return torch.rand(3, 8, generator=torch.Generator().manual_seed(0)).double()


def test_lengths_are_those_of_the_samples_in_packed_rows():
    lengths = response_lengths(MASK, SEGMENTS)
    assert lengths.tolist() == [[4] * 5 + [0] * 3, [1, 1, 1, 3, 3, 3, 3, 1], [7] * 8]
    with pytest.raises(ValueError, match="a segment is -2"):
        response_lengths(MASK, SEGMENTS - 1)


def test_token_averaging_is_the_mean_over_tokens_and_sample_averaging_over_samples():
    values = losses()
    token, sample = (averaged_loss(values, MASK, SEGMENTS, exponent).mean() for exponent in (TOKEN, SAMPLE))
    torch.testing.assert_close(token, values[MASK].mean())
    means = torch.stack([values[row, start:end].mean() for row, start, end in SAMPLES])
    torch.testing.assert_close(sample, means.mean())


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5, 1.0])
def test_a_sample_weighs_its_length_to_the_power_of_1_minus_p(exponent):
    """Σ w · loss / Σ w over tokens is the mean of the samples' means, each with weight x^(1−p)."""
    values = losses()
    weights = torch.tensor([(end - start) ** (1 - exponent) for _, start, end in SAMPLES]).double()
    means = torch.stack([values[row, start:end].mean() for row, start, end in SAMPLES])
    loss = averaged_loss(values, MASK, SEGMENTS, exponent)
    torch.testing.assert_close(loss.mean(), (weights * means).sum() / weights.sum())
    assert float(loss.terms) == pytest.approx(float(weights.sum()))


def test_square_averaging_of_a_case_by_hand():
    """A sample of 4 tokens with loss 1 and one of 1 token with loss 4: (2 · 1 + 1 · 4) / (2 + 1) = 2."""
    values, mask = torch.tensor([[1.0, 1, 1, 1], [4, 9, 9, 9]]), torch.tensor([[True] * 4, [True, False, False, False]])
    segments = torch.zeros(2, 4, dtype=torch.long)
    assert averaged_loss(values, mask, segments).mean() == 2
    assert averaged_loss(values, mask, segments, TOKEN).mean() == pytest.approx(8 / 5)
    assert averaged_loss(values, mask, segments, SAMPLE).mean() == pytest.approx(5 / 2)


def test_packing_and_accumulation_change_nothing():
    values = losses()
    assert_loss_adds_up(lambda rows: averaged_loss(values[rows], MASK[rows], SEGMENTS[rows], SQUARE), 3)
    alone = []
    for row, start, end in SAMPLES:
        part = (slice(row, row + 1), slice(start, end))
        alone.append(averaged_loss(values[part], MASK[part], torch.zeros(1, end - start, dtype=torch.long)))
    torch.testing.assert_close(add_losses(alone).mean(), averaged_loss(values, MASK, SEGMENTS).mean())


def test_only_response_tokens_get_a_gradient():
    logits = torch.randn(3, 8, 5, requires_grad=True)
    values = F.cross_entropy(logits.flatten(0, 1), torch.zeros(24, dtype=torch.long), reduction="none").view(3, 8)
    averaged_loss(values, MASK, SEGMENTS).mean().backward()
    assert torch.equal(logits.grad.abs().sum(dim=-1) > 0, MASK)


# ── The mixer ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TEXT, PAIRS = Corpus([90, 110, 100], 1.0), Corpus([9, 11, 10, 10, 12, 8], 3.0)


def test_corpora_give_their_fractions_of_the_tokens():
    mixer = CorpusMixer({"text": TEXT, "pairs": PAIRS, "unused": Corpus([5], 0.0)}, seed=1)
    # With documents of 100 and 10 tokens, a quarter of the tokens is 1 document in 31.
    assert mixer.probabilities == pytest.approx([1 / 31, 30 / 31, 0])
    for _ in range(20_000):
        next(mixer)
    fractions = mixer.token_fractions()
    assert fractions["text"] == pytest.approx(0.25, abs=0.02) and fractions["unused"] == 0
    assert mixer.epochs()["pairs"] == pytest.approx(mixer.tokens["pairs"] / 60)


def test_no_document_returns_before_all_others_were_drawn():
    drawn = [draw for draw, _ in zip(CorpusMixer({"text": TEXT, "pairs": PAIRS}), range(600), strict=False)]
    pairs = [draw.document for draw in drawn if draw.corpus == "pairs"]
    epochs = [pairs[start : start + 6] for start in range(0, len(pairs) - 6, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 20


def test_the_same_seed_gives_the_same_stream():
    streams = [CorpusMixer({"text": TEXT, "pairs": PAIRS}, seed=seed) for seed in (3, 3, 4)]
    first, again, other = ([next(stream) for _ in range(50)] for stream in streams)
    assert first == again != other


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        ({}, "no corpus has a fraction above 0"),
        ({"a": Corpus([3], 0.0)}, "no corpus has a fraction above 0"),
        ({"a": Corpus([], 1.0)}, "the corpus 'a' has 0 documents"),
        ({"a": Corpus([3, 0], 1.0)}, "each of at least 1 token"),
        ({"a": Corpus([3], -1.0)}, "the fraction -1.0"),
    ],
)
def test_wrong_mixtures_are_refused(corpora, message):
    with pytest.raises(ValueError, match=message):
        CorpusMixer(corpora)
    with pytest.raises(ValueError, match="no document was drawn"):
        CorpusMixer({"a": TEXT}).token_fractions()


# ── MPO ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pairs():
    return PreferencePairs(
        preferred=torch.tensor([-8.0, -6.0]),
        rejected=torch.tensor([-12.0, -4.0]),
        reference_preferred=torch.tensor([-10.0, -6.0]),
        reference_rejected=torch.tensor([-10.0, -5.0]),
        preferred_lengths=torch.tensor([4, 2]),
    )


def minus_log_sigmoid(x):
    return math.log1p(math.exp(-x))


def test_a_case_by_hand():
    """With β = 1/2: rewards 1 and −1 of the first pair, 0 and 1/2 of the second; their mean δ is 1/8."""
    loss, metrics = mpo_loss(pairs(), RewardShift(), MPOSettings(beta=0.5))
    preference = (minus_log_sigmoid(2) + minus_log_sigmoid(-0.5)) / 2
    quality = (
        minus_log_sigmoid(1 - 1 / 8)
        + minus_log_sigmoid(1 / 8 + 1)
        + minus_log_sigmoid(-1 / 8)
        + minus_log_sigmoid(1 / 8 - 1 / 2)
    ) / 2
    generation = (8 / 4 + 6 / 2) / 2
    assert float(loss) == pytest.approx(0.8 * preference + 0.2 * quality + generation, abs=1e-6)
    expected = {"preference": preference, "quality": quality, "generation": generation, "preferred_wins": 0.5}
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, abs=1e-6)


def test_with_its_weight_alone_each_part_is_the_loss():
    dpo, _ = dpo_loss(pairs().preferred, pairs().rejected, pairs().reference_preferred, pairs().reference_rejected, 0.3)
    only = MPOSettings(beta=0.3, preference=1.0, quality=0.0, generation=0.0)
    torch.testing.assert_close(mpo_loss(pairs(), RewardShift(), only)[0], dpo)
    for name in ("preference", "quality", "generation"):
        weights = dict.fromkeys(("preference", "quality", "generation"), 0.0) | {name: 2.0}
        loss, metrics = mpo_loss(pairs(), RewardShift(), MPOSettings(0.3, **weights))
        torch.testing.assert_close(loss, 2 * metrics[name])


def test_the_shift_is_the_mean_of_all_rewards():
    shift = RewardShift()
    assert shift.value == 0
    for count, rewards in ((2, (1.0, 3.0)), (6, (0.0, 2.0, 2.0, 4.0))):
        half = len(rewards) // 2
        shift.update(torch.tensor(rewards[:half]), torch.tensor(rewards[half:]))
        assert shift.value == 2 and shift.count == count


def test_the_gradient_raises_the_preferred_response():
    batch = pairs()
    batch.preferred.requires_grad_()
    batch.rejected.requires_grad_()
    mpo_loss(batch, RewardShift())[0].backward()
    assert (batch.preferred.grad < 0).all() and (batch.rejected.grad > 0).all()


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"preference": -1.0}, {"quality": -0.1}, {"generation": -2.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected beta above 0 and weights of at least 0"):
        MPOSettings(**wrong)
