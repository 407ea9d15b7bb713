"""The exercises of the image tokenizer, each reached through `student` alone: tensors and numbers in, tensors out."""

import math

import pytest
import torch


def close(result, expected, tolerance=1e-6):
    torch.testing.assert_close(result.double(), expected.double(), atol=tolerance, rtol=0)


# ── 11.11: the nearest code ───────────────────────────────────────────────────────────────────────────────────────────

NEAREST = "model.quantizer:nearest_codes"


@pytest.mark.exercise("11.11")
def test_the_nearest_entry_has_the_smallest_euclidean_distance(student):
    vectors, codebook = torch.randn(40, 3), 2 * torch.randn(11, 3)
    expected = [
        min(range(11), key=lambda code: math.dist(vector, codebook[code].tolist())) for vector in vectors.tolist()
    ]
    assert student(NEAREST, vectors=vectors, codebook=codebook).tolist() == expected


@pytest.mark.exercise("11.11")
def test_a_long_entry_in_the_same_direction_is_not_the_nearest(student):
    """The largest dot product would choose it."""
    codebook = torch.tensor([[10.0, 0.0], [1.0, 0.5], [0.0, -1.0]])
    vectors = torch.tensor([[1.0, 0.0], [9.0, 0.0], [0.1, -0.4], [0.5, 0.5]])
    assert student(NEAREST, vectors=vectors, codebook=codebook).tolist() == [1, 0, 2, 1]


# ── 11.12: the straight-through estimator ─────────────────────────────────────────────────────────────────────────────

STRAIGHT = "model.quantizer:straight_through"


@pytest.mark.exercise("11.12")
def test_values_are_the_entries_and_the_gradient_is_the_vectors(student):
    vectors, quantized, upstream = (torch.randn(5, 3).double() for _ in range(3))
    result, gradients = student(STRAIGHT, vectors=vectors, quantized=quantized, upstream=upstream)
    close(result, quantized, 1e-12)
    assert torch.equal(gradients["vectors"], upstream)
    assert not gradients["quantized"].any()


# ── 11.13: the commitment loss and the codebook loss ──────────────────────────────────────────────────────────────────

LOSS = "model.quantizer:quantization_loss"


@pytest.mark.exercise("11.13")
@pytest.mark.parametrize(("commitment", "codebook"), [(0.25, 0.0), (0.25, 1.0), (0.0, 3.0), (2.0, 0.5)])
def test_each_term_moves_one_side(student, commitment, codebook):
    vectors, quantized = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    arguments = {"vectors": vectors, "quantized": quantized, "commitment": commitment, "codebook": codebook}
    result, gradients = student(LOSS, **arguments, upstream=torch.tensor(2.0).double())
    difference = vectors - quantized
    close(result, (commitment + codebook) * difference.square().sum() / 12, 1e-12)
    close(gradients["vectors"], 2 * commitment * 2 * difference / 12, 1e-12)
    close(gradients["quantized"], 2 * codebook * -2 * difference / 12, 1e-12)


# ── 11.14: moving averages of the codebook ────────────────────────────────────────────────────────────────────────────

AVERAGES = "model.quantizer:update_averages"


@pytest.mark.exercise("11.14")
def test_counts_and_sums_move_toward_those_of_the_batch(student):
    arguments = {
        "counts": torch.tensor([2.0, 4.0, 0.0, 1.0]),
        "sums": torch.tensor([[2.0, 0.0], [0.0, 8.0], [0.0, 0.0], [1.0, 1.0]]),
        "vectors": torch.tensor([[1.0, 2.0], [3.0, 5.0], [-1.0, 7.0]]),
        "codes": torch.tensor([1, 1, 2]),
        "decay": 0.75,
    }
    counts, sums = student(AVERAGES, **arguments)
    close(counts, torch.tensor([1.5, 3.5, 0.25, 0.75]))
    close(sums, torch.tensor([[1.5, 0.0], [1.0, 7.75], [-0.25, 1.75], [0.75, 0.75]]))


@pytest.mark.exercise("11.14")
def test_without_decay_an_entry_is_the_mean_of_its_vectors(student):
    vectors, codes = torch.randn(30, 2).double(), torch.arange(30) % 4
    counts, sums = student(
        AVERAGES, counts=torch.ones(5).double(), sums=torch.ones(5, 2).double(), vectors=vectors, codes=codes, decay=0.0
    )
    assert counts.tolist() == [8, 8, 7, 7, 0] and counts.dtype == torch.float64
    for code in range(4):
        close(sums[code] / counts[code], vectors[codes == code].mean(dim=0), 1e-12)
    assert not sums[4].any()


# ── 11.15: restart dead codes ─────────────────────────────────────────────────────────────────────────────────────────

RESTART = "model.quantizer:restart_dead_codes"


@pytest.mark.exercise("11.15")
def test_codes_below_the_threshold_start_again_at_their_replacements(student):
    sums = torch.tensor([[2.0, 4.0], [0.2, 0.3], [0.9, 0.0], [1.0, 7.0]])
    counts, replacements = (
        torch.tensor([2.0, 0.1, 0.99, 1.0]),
        torch.tensor([[9.0, 9.0], [1.0, -2.0], [3.0, 5.0], [8.0, 8.0]]),
    )
    arguments = {"counts": counts, "sums": sums, "replacements": replacements}
    new_counts, new_sums = student(RESTART, **arguments, mean_count=4.0, threshold=0.25)
    close(new_counts, torch.tensor([2.0, 4.0, 4.0, 1.0]))  # a count of exactly the threshold is not below it
    close(new_sums, torch.tensor([[2.0, 4.0], [4.0, -8.0], [12.0, 20.0], [1.0, 7.0]]))
    unchanged = student(RESTART, **arguments, mean_count=4.0, threshold=0.0)
    assert torch.equal(unchanged[0], counts) and torch.equal(unchanged[1], sums)


@pytest.mark.exercise("11.15")
def test_the_threshold_is_relative_to_the_mean_count(student):
    arguments = {"sums": torch.ones(2, 1), "replacements": torch.tensor([[5.0], [5.0]]), "threshold": 0.5}
    counts, sums = student(RESTART, counts=torch.tensor([0.04, 0.06]), **arguments, mean_count=0.1)
    close(counts, torch.tensor([0.1, 0.06]))
    close(sums, torch.tensor([[0.5], [1.0]]))


@pytest.mark.exercise("11.15")
def test_any_dead_codes_start_again(student):
    counts, sums, replacements = 2 * torch.rand(12), torch.randn(12, 3), torch.randn(12, 3)
    arguments = {"counts": counts, "sums": sums, "replacements": replacements}
    new_counts, new_sums = student(RESTART, **arguments, mean_count=1.5, threshold=0.5)
    for code, count in enumerate(counts.tolist()):
        dead = count < 0.75
        close(new_counts[code], torch.tensor(1.5) if dead else counts[code])
        close(new_sums[code], 1.5 * replacements[code] if dead else sums[code])


# ── 11.16: perplexity of the codes ────────────────────────────────────────────────────────────────────────────────────

PERPLEXITY = "model.quantizer:perplexity"


@pytest.mark.exercise("11.16")
def test_perplexity_is_the_effective_number_of_codes(student):
    assert student(PERPLEXITY, codes=torch.full((2, 3), 4), codebook_size=9).item() == pytest.approx(1)
    close(student(PERPLEXITY, codes=torch.arange(24).view(2, 3, 4) % 6, codebook_size=9), torch.tensor(6.0), 1e-9)
    # A half, a quarter and two eighths.
    codes = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    close(student(PERPLEXITY, codes=codes, codebook_size=4), torch.tensor(2.0**1.75).double(), 1e-6)


@pytest.mark.exercise("11.16")
def test_perplexity_of_any_codes(student):
    codes = torch.randint(0, 9, (5, 13)).square() // 10
    fractions = [codes.flatten().tolist().count(code) / 65 for code in range(9)]
    expected = math.exp(-sum(fraction * math.log(fraction) for fraction in fractions if fraction))
    assert student(PERPLEXITY, codes=codes, codebook_size=9).item() == pytest.approx(expected, rel=1e-5)


# ── 11.17 and 11.18: finite scalar quantization ───────────────────────────────────────────────────────────────────────

BOUND, CODES = "model.fsq:bound", "model.fsq:codes_of_levels"
LEVELS = (2, 3, 4, 5, 8)


@pytest.mark.exercise("11.17")
def test_rounding_gives_exactly_the_levels(student):
    vectors = torch.linspace(-20, 20, 4001).double()[:, None].expand(-1, len(LEVELS)).contiguous()
    bounded = student(BOUND, vectors=vectors, levels=torch.tensor(LEVELS).double())
    assert (bounded.diff(dim=0) >= 0).all()
    for channel, count in enumerate(LEVELS):
        values = bounded[:, channel].round().unique().tolist()
        assert values == list(range(-(count // 2), (count + 1) // 2)), count


@pytest.mark.exercise("11.17")
def test_the_bound_is_0_at_0_and_has_the_gradient_of_tanh(student):
    levels = torch.tensor(LEVELS).double()
    vectors, upstream = torch.zeros(1, len(LEVELS)).double(), torch.ones(1, len(LEVELS)).double()
    result, gradients = student(BOUND, vectors=vectors, levels=levels, upstream=upstream)
    close(result, torch.zeros(1, len(LEVELS)), 1e-9)
    half = (levels - 1) * 1.001 / 2
    offset = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.5]).double()
    close(gradients["vectors"], (half * (1 - (offset / half) ** 2))[None], 1e-9)  # h (1 − tanh²), tanh(s) = o / h


@pytest.mark.exercise("11.17")
def test_the_bound_by_its_formula(student):
    levels = torch.tensor([4.0, 5.0]).double()
    result = student(BOUND, vectors=torch.tensor([[0.7, -0.3]]).double(), levels=levels)
    expected = [1.5015 * math.tanh(0.7 + math.atanh(0.5 / 1.5015)) - 0.5, 2.002 * math.tanh(-0.3)]
    close(result, torch.tensor([expected]).double(), 1e-6)


@pytest.mark.exercise("11.17")
def test_the_bound_of_any_vectors(student):
    vectors, levels = torch.randn(6, 3).double(), torch.tensor([3.0, 4.0, 6.0]).double()
    result = student(BOUND, vectors=vectors, levels=levels)
    for channel, (half, offset) in enumerate(((1.001, 0.0), (1.5015, 0.5), (2.5025, 0.5))):
        expected = [half * math.tanh(value + math.atanh(offset / half)) - offset for value in vectors[:, channel]]
        close(result[:, channel], torch.tensor(expected).double())


@pytest.mark.exercise("11.18")
def test_codes_count_all_combinations_of_levels(student):
    """The first channel is the last digit: it changes with every code."""
    levels = torch.tensor([4.0, 3.0, 2.0])
    combinations = [[(a - 2) / 2, float(b - 1), float(c - 1)] for c in range(2) for b in range(3) for a in range(4)]
    codes = student(CODES, quantized=torch.tensor(combinations), levels=levels)
    assert codes.dtype == torch.int64 and codes.tolist() == list(range(24))
    # Vectors that were divided and passed straight through are exact up to rounding errors.
    for error in (-1e-5, 1e-5):
        codes = student(CODES, quantized=torch.tensor(combinations) + error, levels=levels)
        assert codes.tolist() == list(range(24))


@pytest.mark.exercise("11.18")
def test_codes_of_any_levels(student):
    counts = torch.randint(2, 6, (3,)).tolist()
    digits = [[int(torch.randint(0, count, ())) for count in counts] for _ in range(10)]
    quantized = [
        [(digit - count // 2) / (count // 2) for digit, count in zip(row, counts, strict=True)] for row in digits
    ]
    codes = student(CODES, quantized=torch.tensor(quantized), levels=torch.tensor(counts).float())
    assert codes.tolist() == [a + counts[0] * (b + counts[1] * c) for a, b, c in digits]


# ── 11.19 and 11.20: the adversarial loss ─────────────────────────────────────────────────────────────────────────────

HINGE, WEIGHT = "model.discriminator:hinge_loss", "model.discriminator:adaptive_weight"


@pytest.mark.exercise("11.19")
def test_logits_within_the_margin_have_a_loss_and_a_gradient(student):
    real = torch.tensor([2.0, 0.5, -1.0, 1.5]).view(1, 1, 2, 2)
    generated = torch.tensor([-3.0, -0.5, 0.0, 2.0]).view(1, 1, 2, 2)
    result, gradients = student(HINGE, real=real, generated=generated, upstream=torch.tensor(8.0))
    close(result, torch.tensor((0.5 + 2) / 8 + (0.5 + 1 + 3) / 8))
    close(gradients["real"].flatten(), torch.tensor([0.0, -1.0, -1.0, 0.0]))
    close(gradients["generated"].flatten(), torch.tensor([0.0, 1.0, 1.0, 1.0]))


@pytest.mark.exercise("11.19")
def test_the_two_sides_may_have_different_numbers_of_patches(student):
    result = student(HINGE, real=torch.zeros(1, 1, 1, 1), generated=torch.ones(2, 1, 3, 3))
    close(result, torch.tensor(0.5 * 1 + 0.5 * 2))


@pytest.mark.exercise("11.19")
def test_the_loss_of_any_logits(student):
    real, generated = 2 * torch.randn(2, 1, 3, 3), 2 * torch.randn(2, 1, 3, 3)
    result = student(HINGE, real=real, generated=generated)
    sides = [
        sum(max(0.0, 1 - sign * value) for value in side.flatten().tolist())
        for sign, side in ((1, real), (-1, generated))
    ]
    close(result, torch.tensor(sum(sides) / 36), 1e-5)


@pytest.mark.exercise("11.20")
def test_the_weight_is_the_ratio_of_the_gradient_norms(student):
    reconstruction, adversarial = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
    arguments = {"reconstruction_gradient": reconstruction, "adversarial_gradient": adversarial}
    close(student(WEIGHT, **arguments, delta=0.5), torch.tensor(2.0))
    close(student(WEIGHT, **arguments), torch.tensor(5 / (2 + 1e-6)), 2e-7)
    close(student(WEIGHT, **arguments, largest=1.5), torch.tensor(1.5))


@pytest.mark.exercise("11.20")
def test_without_an_adversarial_gradient_the_weight_is_the_largest_one_and_a_constant(student):
    arguments = {"reconstruction_gradient": torch.ones(2, 3), "adversarial_gradient": torch.zeros(2, 3)}
    result, gradients = student(WEIGHT, **arguments, upstream=torch.tensor(1.0))
    assert result == 1e4
    _, gradients = student(WEIGHT, **arguments, delta=1.0, upstream=torch.tensor(1.0))
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.exercise("11.20")
def test_the_weight_of_any_gradients(student):
    reconstruction, adversarial = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    arguments = {"reconstruction_gradient": reconstruction, "adversarial_gradient": adversarial}
    ratio = math.hypot(*reconstruction.flatten().tolist()) / (math.hypot(*adversarial.flatten().tolist()) + 0.25)
    close(student(WEIGHT, **arguments, delta=0.25), torch.tensor(ratio).double())
