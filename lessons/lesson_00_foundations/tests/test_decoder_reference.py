"""The pure-Python decoder equals the PyTorch one with the same weights, and its baseline and run are right."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder import reference
from lessons.lesson_00_foundations.decoder.experiment.exact import check_decoder, equal_models
from shared.course.context import RunContext
from shared.testing import quick_run

ODD = reference.Sizes(11, width=18, depth=2, heads=3, kv_heads=1, mlp_dim=10, rotary_base=300.0, norm_eps=0.01)


@pytest.mark.parametrize(
    "sizes", [ODD, reference.Sizes(9, width=16, heads=4, kv_heads=4)], ids=["grouped", "not grouped"]
)
def test_equal_weights_give_equal_logits_and_gradients(sizes):
    plain, model = equal_models(sizes, 0)
    windows = torch.randint(sizes.vocab_size, (2, 8))
    loss = reference.next_letter_loss(plain, windows.tolist())
    loss.backward()
    logits = model(windows[:, :-1])
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    plain_logits = plain(windows[:, :-1].tolist())
    torch.testing.assert_close(
        torch.tensor(plain_logits.data, dtype=torch.float64).reshape(plain_logits.shape), logits, atol=1e-9, rtol=0
    )
    gradients = plain.parameters()
    for name, parameter in model.named_parameters():
        gradient = torch.tensor(gradients[name].grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-9, rtol=0)
        assert gradient.abs().max() > 1e-6


def test_the_exact_checks_hold_to_rounding():
    differences = check_decoder(RunContext(seed=3, data="", device="cpu", folder=Path()))
    assert differences["reference_difference"] < 1e-9 and differences["reference_gradient_difference"] < 1e-9
    assert differences["cache_differing_tokens"] == differences["batch_differing_tokens"] == 0
    assert differences["tokens_compared"] == 200


def test_bigram_counts_computed_by_hand():
    # After a: b, b, c. After b: a, a. Nothing follows c.
    letters = [reference.ALPHABET.index(letter) for letter in "abab ac"]
    a, b, size = letters[0], letters[1], len(reference.ALPHABET)
    bits = reference.bigram_bits(letters, [[a, b]])
    assert 2**-bits == pytest.approx((2 + 1) / (3 + size))


def test_run_returns_what_it_prints_and_is_repeatable(capsys):
    first, again, other = (reference.run(steps=1, seed=seed) for seed in (1, 1, 2))
    printed = capsys.readouterr().out
    assert f"{first['bits_per_byte']:6.2f}" in printed and f"{first['bigram_bits_per_byte']:6.2f}" in printed
    for key in ("bits_per_byte", "bigram_bits_per_byte", "losses", "sample"):
        assert first[key] == again[key]
    assert first["losses"] != other["losses"]


def test_quick_run_with_nothing_installed():
    """After so few steps the decoder is behind the bigram counts, but well ahead of a uniform distribution."""
    done = quick_run("lessons.lesson_00_foundations.decoder.reference")
    scores = {
        line[:19].strip(): float(line[19:].split()[0]) for line in done.stdout.splitlines() if line.startswith("  ")
    }
    assert 1.5 < scores["bigram counts"] < 3.0
    assert scores["decoder"] < 4.0 < scores["uniform"]
