"""Exercises 7.11 to 7.13, each called through `student`. A mistake in an exercise fails at least one test."""

from statistics import median

import pytest
import torch


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# ── 7.11: the columns of generated factors ───────────────────────────────────────────────────────────────────────────


def fraction(student, base_factors, generators):
    return student("experiment.factorial:fractional_factorial", base_factors=base_factors, generators=generators)


@pytest.mark.exercise("7.11")
def test_a_generated_column_is_the_product_of_its_base_factors(student):
    levels = fraction(student, 2, [(0, 1)])
    assert levels.tolist() == [[-1, -1, 1], [1, -1, -1], [-1, 1, -1], [1, 1, 1]]


@pytest.mark.exercise("7.11")
@pytest.mark.parametrize("generators", [[(0, 1, 2, 3)], [(0, 2)], [(0, 1), (1, 2, 3)], [(1, 3), (0, 1), (0, 2, 3)], []])
def test_base_factors_come_first_and_generated_ones_in_order(student, generators):
    levels = fraction(student, 4, generators)
    assert levels.shape == (16, 4 + len(generators))
    assert len({tuple(run) for run in levels[:, :4].tolist()}) == 16
    for place, generator in enumerate(generators):
        expected = torch.ones(16, dtype=torch.float64)
        for factor in generator:
            expected = expected * levels[:, factor]
        torch.testing.assert_close(levels[:, 4 + place], expected)


@pytest.mark.exercise("7.11")
def test_random_generators(student):
    generators = [sorted(torch.randperm(4)[:size].tolist()) for size in (2, 3, 2)]
    levels = fraction(student, 4, generators)
    for run in levels.tolist():
        for place, generator in enumerate(generators):
            lowered = [run[factor] for factor in generator].count(-1)
            assert run[4 + place] == (-1) ** lowered


# ── 7.12: effects from contrasts ─────────────────────────────────────────────────────────────────────────────────────


def estimates(student, columns, scores, **upstream):
    return student("experiment.factorial:effect_estimates", columns=columns, scores=scores, **upstream)


COLUMNS = tensor([-1, -1, 1], [1, -1, -1], [-1, 1, -1], [1, 1, 1])


@pytest.mark.exercise("7.12")
def test_an_effect_is_the_difference_of_two_means(student):
    scores = tensor([60, 1], [72, 1], [54, 1], [68, 2])
    torch.testing.assert_close(estimates(student, COLUMNS, scores), tensor([13, 0.5], [-5, 0.5], [1, 0.5]))


@pytest.mark.exercise("7.12")
def test_the_number_of_runs_does_not_change_an_effect(student):
    columns = COLUMNS.repeat(4, 1)
    scores = torch.rand(16, 3, dtype=torch.float64)
    for place, estimate in enumerate(estimates(student, columns, scores)):
        column = columns[:, place]
        torch.testing.assert_close(estimate, scores[column > 0].mean(0) - scores[column < 0].mean(0))


@pytest.mark.exercise("7.12")
def test_gradients_of_effects_reach_every_score(student):
    scores = torch.rand(4, 2, dtype=torch.float64)
    upstream = tensor([1, 0], [0, 0], [0, 2])
    _, gradients = estimates(student, COLUMNS, scores, upstream=upstream)
    torch.testing.assert_close(gradients["scores"], COLUMNS @ upstream / 2)


# ── 7.13: Lenth's pseudo standard error ──────────────────────────────────────────────────────────────────────────────


def error(student, *effects):
    return student("experiment.analysis:lenth_pseudo_standard_error", effects=tensor(*effects))


@pytest.mark.exercise("7.13")
def test_large_effects_are_left_out(student):
    """Median 4, initial 6; 40 is beyond 15, the median of the others is 3.5."""
    assert float(error(student, 1, -2, 3, -4, 5, 6, -40)) == pytest.approx(5.25)


@pytest.mark.exercise("7.13")
def test_with_noise_alone_nothing_is_left_out(student):
    assert float(error(student, 3, -1, 2)) == pytest.approx(3.0)
    assert float(error(student, 1, 3)) == pytest.approx(3.0), "the median of two is their mean"


@pytest.mark.exercise("7.13")
def test_an_effect_at_the_limit_is_left_out(student):
    """Median 2, initial 3; 7.5 is not below 7.5, the median of 1, 2, 2, 2 is 2; with it the median were 2, too."""
    assert float(error(student, 1, 1.5, 2, 7.5, 7.5)) == pytest.approx(1.5 * 1.5)
    assert float(error(student, 1, 1.5, 2, 7.4, 7.4)) == pytest.approx(1.5 * 2)


@pytest.mark.exercise("7.13")
def test_mostly_zero_effects_have_no_error(student):
    assert float(error(student, 0, 0, 0, 5)) == 0.0
    assert float(error(student, 0, 0, 0)) == 0.0


@pytest.mark.exercise("7.13")
@pytest.mark.parametrize("count", [7, 12])
def test_random_effects(student, count):
    effects = [*torch.randn(count - 2).tolist(), *(20 + 10 * torch.rand(2)).tolist()]
    sizes = sorted(map(abs, effects))
    limit = 2.5 * 1.5 * median(sizes)
    while sizes[-1] >= limit:
        sizes.pop()
    assert float(error(student, *effects)) == pytest.approx(1.5 * median(sizes))
