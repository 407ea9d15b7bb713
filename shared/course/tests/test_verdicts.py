"""Verdicts: intervals over seeds, baselines paired by seed, and one run against the record."""

import math
from dataclasses import replace

import pytest

from shared.course.claims import (
    Interval,
    Verdict,
    format_mean,
    format_value,
    half_width,
    judge,
    mean_interval,
    number,
    run_interval,
    sampling_error,
)
from shared.course.lesson import Arm, Claim, Lesson, question
from shared.course.run import choose_part
from shared.errors import CourseError

CLAIM = Claim(
    name="reads",
    kind="learns",
    sentence="Accuracy of the model on held-out digits.",
    source="here",
    arms=("model",),
    measure=lambda arms: arms["model"]["accuracy"],
    threshold=0.9,
)


def arms(*values, baselines=()):
    baselines = baselines or [0.8] * len(values)
    pairs = zip(values, baselines, strict=True)
    return {seed: {"model": {"accuracy": value, "baseline": baseline}} for seed, (value, baseline) in enumerate(pairs)}


def label(claim, *values, **options):
    return judge(claim, arms(*values, **options), judged=True).label


def test_the_whole_interval_decides():
    # The mean of 0.93 and 0.95 is above the threshold, and so is its interval only when the spread is small.
    assert label(CLAIM, 0.949, 0.95, 0.951) == "reproduced"
    assert label(CLAIM, 0.90, 0.95, 0.99) == "inconclusive"
    assert label(CLAIM, 0.80, 0.85, 0.92) == "inconclusive"
    assert label(CLAIM, 0.70, 0.71, 0.72) == "not reproduced"


def test_at_most_reverses_the_comparison():
    error = replace(CLAIM, at_least=False, threshold=0.5)
    assert label(error, 0.40, 0.41, 0.42) == "reproduced"
    assert label(error, 0.60, 0.61, 0.62) == "not reproduced"
    assert label(error, 0.45, 0.50, 0.55) == "inconclusive"


def test_a_baseline_is_paired_by_seed():
    compared = replace(CLAIM, baseline=number("model", "baseline"), baseline_name="baseline", threshold=0.0)
    # Seeds differ by far more than the model and its baseline do, in the same direction.
    assert label(compared, 0.6, 0.7, 0.8, baselines=(0.55, 0.65, 0.75)) == "reproduced"
    assert label(compared, 0.6, 0.7, 0.8, baselines=(0.75, 0.65, 0.55)) == "inconclusive"
    assert label(compared, 0.6, 0.7, 0.8, baselines=(0.65, 0.75, 0.85)) == "not reproduced"
    below = replace(compared, at_least=False, threshold=1.0)
    assert label(below, 0.6, 0.7, 0.8, baselines=(0.65, 0.75, 0.85)) == "reproduced"
    assert label(below, 0.6, 0.7, 0.8, baselines=(0.55, 0.65, 0.75)) == "not reproduced"


def test_the_value_of_the_baseline_is_no_gain():
    compared = replace(CLAIM, baseline=number("model", "baseline"), baseline_name="baseline", threshold=0.5)
    assert label(compared, 0.7, 0.7, baselines=(0.7, 0.7)) == "not reproduced"


def test_not_a_number_is_never_reproduced():
    for at_least in (True, False):
        assert label(replace(CLAIM, at_least=at_least), math.nan, math.nan) == "not reproduced"


def test_an_exact_claim_is_judged_from_one_seed():
    exact = replace(CLAIM, kind="exact", at_least=False, threshold=1e-5, show="error")
    assert label(exact, 1e-6) == "reproduced"
    assert label(exact, 1e-4) == "not reproduced"
    assert not judge(exact, arms(1e-4), judged=True).as_expected


def test_one_run_is_compared_with_the_recorded_runs():
    recorded = (0.94, 0.95, 0.96)
    inside, outside, far = (judge(CLAIM, arms(value), judged=True, recorded=recorded) for value in (0.93, 1.0, 0.5))
    assert (inside.label, inside.as_expected) == ("within", True)
    assert (outside.label, outside.as_expected) == ("outside", True)
    assert (far.label, far.as_expected) == ("outside", False)


def test_one_run_without_a_record_is_compared_with_the_threshold():
    good, bad = (judge(CLAIM, arms(value), judged=True) for value in (0.95, 0.85))
    assert (good.label, good.as_expected) == ("meets the threshold", True)
    assert (bad.label, bad.as_expected) == ("misses the threshold", False)


def test_a_noisy_run_below_the_threshold_does_not_contradict_a_noisy_record():
    verdict = judge(CLAIM, arms(0.89), judged=True, recorded=(0.92, 0.97, 1.0))
    assert (verdict.label, verdict.as_expected) == ("within", True)


def test_several_seeds_contradict_the_expected_verdict_only_when_they_are_conclusive():
    negative = replace(CLAIM, expected="not reproduced", hypothesis="too small")
    assert judge(negative, arms(0.70, 0.71, 0.72), judged=True).as_expected
    assert judge(negative, arms(0.90, 0.95, 0.99), judged=True).as_expected
    assert not judge(negative, arms(0.949, 0.95, 0.951), judged=True).as_expected
    assert not judge(CLAIM, arms(0.70, 0.71, 0.72), judged=True).as_expected
    assert judge(replace(CLAIM, expected="inconclusive"), arms(0.70, 0.71, 0.72), judged=True).as_expected


def test_a_claim_that_is_not_judged_is_only_measured():
    verdict = judge(CLAIM, arms(0.1), judged=False)
    assert (verdict.label, verdict.as_expected) == ("measured", True)


def test_intervals_are_student_t():
    # Mean 2, standard deviation 1, three values: 4.303 · 1 / √3, and 4.303 · √(1 + 1/3) for one further run.
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))
    assert half_width([1.0]) is None
    assert mean_interval([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.303 / math.sqrt(3))
    assert run_interval([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.303 * math.sqrt(4 / 3))
    assert run_interval([1.0]) == Interval(1.0, 1.0)


def test_values_show_units():
    assert format_mean(judge(CLAIM, arms(0.9123), judged=True)) == "91.2 %"
    assert format_value(0.031, "points") == "+3.1 points"
    assert format_value(-0.031, "points") == "−3.1 points"
    assert (format_value(-0.0001, "points"), format_value(-91.7, "number")) == ("0.0 points", "−91.7")
    assert "± " in format_mean(judge(CLAIM, arms(0.91, 0.912), judged=True))


def test_the_interval_of_a_fraction_is_cut_at_its_bounds():
    # The mean of three values ± 4.303 · standard deviation / √3.
    high = Verdict(CLAIM, (0.96, 1.0, 1.0), (), True)
    assert format_mean(high) == "98.7 % (92.9 to 100.0)"
    low = Verdict(CLAIM, (0.0, 0.0, 0.04), (), True)
    assert format_mean(low) == "1.3 % (0.0 to 7.1)"
    difference = Verdict(replace(CLAIM, show="points"), (0.96, 1.0, 1.0), (), True)
    assert format_mean(difference) == "+98.7 points ± 5.7"


def test_the_sampling_error_of_the_test_set_stands_beside_the_interval():
    # 1.96 · √(0.9 · 0.1 / 400) = 2.94 points.
    assert sampling_error(0.9, 400) == pytest.approx(0.0294, abs=1e-4)
    counted = replace(CLAIM, test_items=400)
    assert format_mean(Verdict(counted, (0.89, 0.91), (), True)).endswith("(test set ± 2.9)")


def test_a_question_groups_claims():
    first, second = question("Does it read?", CLAIM, replace(CLAIM, name="more"))
    assert first.question == second.question == "Does it read?"


def test_only_claims_that_are_not_reproduced_have_a_hypothesis():
    with pytest.raises(ValueError, match="hypothesis"):
        replace(CLAIM, hypothesis="why not")
    with pytest.raises(ValueError, match="hypothesis"):
        replace(CLAIM, expected="not reproduced")


def test_a_lesson_checks_the_names_of_its_claims_and_arms():
    lesson = {
        "number": 1,
        "arms": (Arm("model", "a:b", {"cpu": {}}),),
        "claims": (CLAIM,),
        "headline": "reads",
        "headline_caption": "read",
        "figures": dict,
        "data_sets": {"cpu": "digits"},
    }
    assert [claim.name for claim in Lesson(**lesson).claims_of("cpu", "digits")] == ["reads"]
    assert Lesson(**lesson).claims_of("smoke", "digits") == []
    with pytest.raises(ValueError, match="no claim is called"):
        Lesson(**lesson | {"headline": "writes"})
    with pytest.raises(ValueError, match="does not have"):
        Lesson(**lesson | {"arms": ()})


def lesson_of_two_parts():
    arms_of_parts = (Arm("model", "a:b", {"cpu": {}}, part="first"), Arm("other", "a:b", {"cpu": {}}, part="second"))
    more = replace(
        CLAIM, name="more", kind="paper", arms=("other",), measure=number("other", "accuracy"), baseline=None
    )
    return Lesson(1, arms_of_parts, (CLAIM, more), "reads", "read", dict, {"cpu": "digits"})


def test_a_part_runs_alone():
    lesson = lesson_of_two_parts()
    assert lesson.parts == ["first", "second"]
    assert [lesson.part_of(name) for name in ("reads", "more")] == ["first", "second"]
    assert [arm.name for arm in lesson.arms_of("cpu", "digits")] == ["model", "other"]
    assert [arm.name for arm in lesson.arms_of("cpu", "digits", "first")] == ["model"]
    assert [claim.name for claim in lesson.claims_of("cpu", "digits", "first")] == ["reads"]
    assert choose_part("first", lesson) == "first"
    assert choose_part(None, lesson) is None
    with pytest.raises(CourseError, match="no part 'third'; choose one of first, second"):
        choose_part("third", lesson)
    with pytest.raises(ValueError, match="claim reads must read arms of one part, not of"):
        replace(lesson, claims=(replace(CLAIM, arms=("model", "other")),))
