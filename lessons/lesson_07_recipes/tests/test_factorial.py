"""Factorial designs and their analysis, against examples computed by hand and data with known effects."""

import math

import pytest
import torch

from lessons.lesson_07_recipes.experiment.analysis import (
    bootstrap_intervals,
    half_normal,
    lenth_margins,
    lenth_pseudo_standard_error,
    predict_best,
    student_t_quantile,
)
from lessons.lesson_07_recipes.experiment.factorial import (
    Design,
    effect_estimates,
    full_factorial,
    half_fraction,
    quarter_fraction,
)
from lessons.lesson_07_recipes.experiment.factorial_figures import draw_effects, draw_half_normal
from shared import plots

LETTERS = ("A", "B", "C", "D", "E")


def letters(effects):
    return ["".join(LETTERS[place] for place in sorted(effect)) for effect in effects]


def scores_of(design, coefficients, noise=0.0, seeds=5, mean=0.5):
    """Scores with known effects: the mean, plus half of each effect times its column, plus noise."""
    scores = torch.full((len(design.levels), seeds), mean, dtype=torch.float64)
    for effect, size in coefficients.items():
        scores += (size / 2 * design.columns([[LETTERS.index(letter) for letter in effect]])).expand(-1, seeds)
    return scores + noise * torch.randn(scores.shape, dtype=torch.float64)


# ── Designs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_design_is_in_standard_order():
    assert full_factorial(2).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert full_factorial(5).shape == (32, 5)
    assert len({tuple(run) for run in full_factorial(5).tolist()}) == 32


@pytest.mark.parametrize("design", [half_fraction(LETTERS), quarter_fraction(LETTERS)], ids=["half", "quarter"])
def test_columns_are_balanced_and_orthogonal(design):
    columns = design.columns(design.effects)
    runs = len(columns)
    torch.testing.assert_close(columns.sum(0), torch.zeros(columns.shape[1], dtype=torch.float64))
    torch.testing.assert_close(columns.T @ columns, runs * torch.eye(columns.shape[1], dtype=torch.float64))


def test_the_half_fraction_has_resolution_five():
    design = half_fraction(LETTERS)
    assert design.levels.shape == (16, 5)
    assert letters(design.words) == ["ABCDE"]
    assert design.resolution == 5
    assert letters(design.aliases([4])) == ["ABCD"]
    assert letters(design.aliases([0, 1])) == ["CDE"]
    assert letters(design.effects[:5]) == list(LETTERS)
    assert len(design.effects) == 15, "five main effects and ten interactions"


def test_the_quarter_fraction_has_resolution_three_and_its_textbook_aliases():
    design = quarter_fraction(LETTERS)
    assert design.levels.shape == (8, 5)
    assert letters(design.words) == ["ABD", "ACE", "BCDE"]
    assert design.resolution == 3
    aliases = {effect: letters(design.aliases([LETTERS.index(letter) for letter in effect])) for effect in "ABCDE"}
    assert aliases["A"] == ["BD", "CE", "ABCDE"]
    assert aliases["B"] == ["AD", "CDE", "ABCE"]
    assert aliases["D"] == ["AB", "BCE", "ACDE"]
    assert letters(design.effects) == ["A", "B", "C", "D", "E", "BC", "BE"]
    assert letters(design.aliases([1, 2])) == ["DE", "ABE", "ACD"]


@pytest.mark.parametrize("design", [half_fraction(LETTERS), quarter_fraction(LETTERS)], ids=["half", "quarter"])
def test_aliased_effects_have_equal_columns(design):
    for effect in design.effects:
        for alias in design.aliases(effect):
            torch.testing.assert_close(design.columns([effect]), design.columns([alias]))


def test_a_full_design_confounds_nothing():
    design = Design(LETTERS[:3])
    assert (design.words, design.resolution, design.aliases([0])) == ((), None, ())
    assert letters(design.effects) == ["A", "B", "C", "AB", "AC", "BC"]


def test_recipes_and_effects_are_named():
    design = half_fraction(("encoder", "LM", "data"))
    assert design.recipes()[0] == {"encoder": -1, "LM": -1, "data": 1}
    assert len(design.recipes()) == 4
    assert design.name([0]) == "encoder"
    assert design.name([1, 0]) == "encoder × LM"


@pytest.mark.parametrize(
    ("factors", "generators", "message"),
    [
        (("A", "B", "C"), ((0, 2),), "not a product of base factors 0 to 1"),
        (("A", "B", "C"), ((0,),), "not a product"),
        (("A", "B", "C"), ((0, 0),), "not a product"),
        (("A",), ((0, 1),), "expected fewer, unique"),
        (("A", "A"), (), "expected fewer, unique"),
    ],
)
def test_impossible_designs_are_refused(factors, generators, message):
    with pytest.raises(ValueError, match=message):
        Design(factors, generators)


def test_a_quarter_fraction_has_five_factors():
    with pytest.raises(ValueError, match="has five factors, not 4"):
        quarter_fraction(LETTERS[:4])


# ── Effects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_effects_of_a_textbook_example():
    """A 2² design with scores 60, 72, 54, 68: main effects 13 and −5, interaction 1."""
    design = Design(("A", "B"))
    scores = torch.tensor([[60.0], [72.0], [54.0], [68.0]], dtype=torch.float64)
    assert effect_estimates(design.columns(design.effects), scores).flatten().tolist() == [13.0, -5.0, 1.0]


@pytest.mark.parametrize("design", [half_fraction(LETTERS), quarter_fraction(LETTERS)], ids=["half", "quarter"])
def test_known_effects_are_recovered(design):
    scores = scores_of(design, {"A": 0.2, "C": -0.1, "BC": 0.04})
    estimates = effect_estimates(design.columns(design.effects), scores)
    expected = {"A": 0.2, "C": -0.1, "BC": 0.04}
    for name, estimate in zip(letters(design.effects), estimates, strict=True):
        torch.testing.assert_close(estimate, torch.full_like(estimate, expected.get(name, 0.0)))


def test_a_quarter_fraction_takes_an_interaction_for_a_main_effect():
    """B × D shares its column with A: the quarter fraction reports it as A, the half fraction does not."""
    quarter, half = quarter_fraction(LETTERS), half_fraction(LETTERS)
    main = [[place] for place in range(5)]
    confounded = effect_estimates(quarter.columns(main), scores_of(quarter, {"BD": 0.3}))
    torch.testing.assert_close(confounded[0], torch.full_like(confounded[0], 0.3))
    clear = effect_estimates(half.columns(main), scores_of(half, {"BD": 0.3}))
    torch.testing.assert_close(clear, torch.zeros_like(clear))


# ── Lenth ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lenth_of_an_example_by_hand():
    """Sizes 1 to 6 and 40: median 4, initial 6; below 15 are 1 to 6 with median 3.5; PSE 5.25."""
    effects = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, 6.0, -40.0], dtype=torch.float64)
    assert float(lenth_pseudo_standard_error(effects)) == pytest.approx(5.25)
    margins = lenth_margins(effects)
    assert margins.single == pytest.approx(5.25 * 3.764, rel=1e-3)
    assert margins.simultaneous == pytest.approx(5.25 * 9.008, rel=1e-3)


def test_lenth_of_effects_that_are_mostly_zero():
    effects = torch.tensor([0.0, 0.0, 0.0, 5.0], dtype=torch.float64)
    assert float(lenth_pseudo_standard_error(effects)) == 0.0


def test_lenth_estimates_the_standard_error_of_noise():
    draws = torch.randn(400, 15, dtype=torch.float64)
    mean = torch.stack([lenth_pseudo_standard_error(effects) for effects in draws]).mean()
    assert 0.9 < float(mean) < 1.1


def test_lenth_needs_three_effects():
    with pytest.raises(ValueError, match="2 effects are too few"):
        lenth_margins(torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [(0.975, 1.0, 12.7062), (0.975, 5.0, 2.5706), (0.95, 2.0, 2.9200), (0.975, 1e4, 1.9602), (0.5, 3.0, 0.0)],
)
def test_student_quantiles_are_those_of_tables(probability, degrees, quantile):
    assert student_t_quantile(probability, degrees) == pytest.approx(quantile, abs=2e-4)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 5.0), (1.0, 5.0), (0.9, 0.5)])
def test_student_quantiles_out_of_range_are_refused(probability, degrees):
    with pytest.raises(ValueError, match="expected"):
        student_t_quantile(probability, degrees)


# ── Bootstrap, half-normal plot, prediction ──────────────────────────────────────────────────────────────────────────


def test_bootstrap_intervals_cover_the_effect():
    design = half_fraction(LETTERS)
    scores = scores_of(design, {"A": 0.2}, noise=0.05, seeds=10)
    estimates = effect_estimates(design.columns(design.effects), scores)
    intervals = bootstrap_intervals(estimates)
    assert intervals.shape == (15, 2)
    assert bool((intervals[:, 0] <= estimates.mean(1)).all()) and bool((estimates.mean(1) <= intervals[:, 1]).all())
    assert float(intervals[0, 0]) > 0.1
    covered = sum(float(low) <= 0.0 <= float(high) for low, high in intervals[1:])
    assert covered >= 10, "14 effects are zero; intervals of 95 % cover most of them"


def test_bootstrap_intervals_are_those_of_the_mean_over_seeds():
    """With the two values 0 and 1 the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4."""
    estimates = torch.tensor([[0.0, 1.0], [5.0, 5.0]], dtype=torch.float64)
    assert bootstrap_intervals(estimates).tolist() == [[0.0, 1.0], [5.0, 5.0]]
    assert bootstrap_intervals(estimates, level=0.4).tolist()[0] == [0.5, 0.5]
    assert bootstrap_intervals(estimates, seed=1).tolist() == bootstrap_intervals(estimates, seed=1).tolist()


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="one seed has no spread"):
        bootstrap_intervals(torch.ones(3, 1, dtype=torch.float64))


def test_half_normal_points_are_sorted_quantiles():
    points = half_normal(torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64))
    assert points.order.tolist() == [1, 2, 0]
    assert points.sizes.tolist() == [1.0, 2.0, 3.0]
    # Φ(q) = ½ + ½ · (1/6, 3/6, 5/6)
    for quantile, fraction in zip(points.quantiles.tolist(), (1 / 6, 3 / 6, 5 / 6), strict=True):
        assert math.erf(quantile / math.sqrt(2)) == pytest.approx(fraction, abs=1e-6)


def test_the_best_recipe_follows_the_signs_of_the_main_effects():
    design = half_fraction(LETTERS)
    scores = scores_of(design, {"A": 0.2, "B": -0.1, "C": 0.02})
    best = predict_best(design, scores, margin=1e-9)
    assert best.levels == {"A": 1, "B": -1, "C": 1, "D": 0, "E": 0}
    assert best.score == pytest.approx(0.5 + 0.1 + 0.05 + 0.01)
    cautious = predict_best(design, scores, margin=0.05)
    assert cautious.levels == {"A": 1, "B": -1, "C": 0, "D": 0, "E": 0}
    assert cautious.score == pytest.approx(0.65)


def test_without_interactions_the_prediction_is_the_best_score():
    design = half_fraction(LETTERS)
    scores = scores_of(design, {"A": 0.2, "B": 0.1, "C": 0.1, "D": 0.1, "E": 0.1})
    best = predict_best(design, scores)
    assert set(best.levels.values()) == {1}
    assert best.score == pytest.approx(float(scores.max()))


# ── Figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_show_every_effect_and_name_real_ones(tmp_path):
    design = half_fraction(LETTERS)
    scores = scores_of(design, {"A": 0.2, "B": -0.1, "CD": 0.15}, noise=0.01)
    figure = draw_effects(design, scores, dict.fromkeys(LETTERS, ("low", "high")))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[:3] == ["A\nhigh − low", "C × D", "B\nhigh − low"] and len(names) == len(design.effects)
    plots.save(figure, tmp_path / "main.png")
    figure = draw_half_normal(design, scores)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"A +", "B −", "C × D +", "margin of one effect", "margin of any effect"} <= texts
    assert not {"A × B +", "A × B −"} & texts
    plots.save(figure, tmp_path / "half_normal.png")
    assert (tmp_path / "half_normal.png").stat().st_size > 1000
