"""A claim can fail: the arithmetic behind the claims table."""

import json
import math
from dataclasses import replace

import pytest

from shared.course.claims import claim_row, half_width, judge, number
from shared.course.lesson import Arm, Claim, Lesson, Run
from shared.course.readme import lesson_results, part_results
from shared.course.results import result_key
from shared.course.run import choose_part
from shared.errors import CourseError

CLAIM = Claim(
    name="reads",
    kind="learns",
    sentence="It reads.",
    source="here",
    arms=("model",),
    measure=lambda arms: arms["model"]["accuracy"],
    threshold=0.9,
)


def arms(*values):
    return {seed: {"model": {"accuracy": value, "baseline": 0.8}} for seed, value in enumerate(values)}


def test_the_mean_decides():
    assert judge(CLAIM, arms(0.85, 0.96), judged=True).label == "reproduced"
    assert judge(CLAIM, arms(0.85, 0.94), judged=True).label == "FAILED"
    assert not judge(CLAIM, arms(0.85, 0.94), judged=True).as_expected


def test_at_most_reverses_the_comparison():
    error = replace(CLAIM, at_least=False, threshold=1e-5, show="error")
    assert judge(error, arms(1e-6), judged=True).holds
    assert not judge(error, arms(1e-4), judged=True).holds


def test_a_value_above_the_threshold_but_not_above_its_baseline_fails():
    compared = replace(CLAIM, baseline=lambda arms: arms["model"]["baseline"], baseline_name="baseline", threshold=0.5)
    assert judge(compared, arms(0.81), judged=True).holds
    assert not judge(compared, arms(0.8), judged=True).holds
    below = replace(compared, at_least=False, threshold=1.0)
    assert judge(below, arms(0.79), judged=True).holds
    assert not judge(below, arms(0.81), judged=True).holds


def test_not_a_number_never_holds():
    for at_least in (True, False):
        assert not judge(replace(CLAIM, at_least=at_least), arms(math.nan), judged=True).holds


def test_a_claim_expected_not_to_hold_must_not_hold():
    negative = replace(CLAIM, expected="not at this scale", reason="too small")
    verdict = judge(negative, arms(0.5), judged=True)
    assert (verdict.label, verdict.as_expected) == ("not at this scale", True)
    verdict = judge(negative, arms(0.95), judged=True)
    assert (verdict.label, verdict.as_expected) == ("reproduced", False)


def test_a_claim_that_is_not_judged_neither_holds_nor_fails():
    verdict = judge(CLAIM, arms(0.1), judged=False)
    assert (verdict.label, verdict.as_expected, claim_row(verdict)["threshold"]) == ("measured", True, "–")


def test_the_interval_is_student_t():
    # Mean 2, standard deviation 1, three values: 4.303 · 1 / √3.
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3))
    assert half_width([1.0]) is None


def test_rows_show_units():
    assert claim_row(judge(CLAIM, arms(0.9123), judged=True))["measured"] == "91.2 %"
    assert claim_row(judge(replace(CLAIM, show="points"), arms(0.031), judged=True))["measured"] == "+3.1 points"
    assert "± " in claim_row(judge(CLAIM, arms(0.91, 0.93), judged=True))["measured"]


def test_only_claims_that_do_not_hold_have_reasons():
    with pytest.raises(ValueError, match="reason"):
        replace(CLAIM, reason="why not")
    with pytest.raises(ValueError, match="reason"):
        replace(CLAIM, expected="not at this scale")


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


def test_another_data_set_has_a_record_and_a_table_of_its_own(tmp_path):
    lesson = lesson_of_two_parts()
    run = Run("cpu", "cpu", "digits", (0,), tmp_path, {})
    assert result_key(run, lesson) == "cpu/cpu"
    assert result_key(replace(run, data="clothes"), lesson) == "cpu/cpu/clothes"
    machine = {"processor": "a chip", "cores": 2, "python": "3", "torch": "2", "commit": "abc"}
    record = {"date": "today", "data": "clothes", "seeds": [0], "seconds": 20, "machine": machine, "claims": []}
    record["arms"] = {"model": {"seconds": [20.0], "peak_memory_mb": 100}}
    (tmp_path / "results.json").write_text(json.dumps({"cpu/cpu/clothes": record}))
    single = replace(lesson, arms=(Arm("model", "a:b", {}),), claims=(CLAIM,))
    assert "`make lesson-1 DATA=clothes`**" in lesson_results(single, tmp_path)


def test_each_part_has_its_own_table(tmp_path):
    lesson = lesson_of_two_parts()
    rows = [
        {
            "name": claim.name,
            "reason": "",
            **claim_row(judge(claim, {0: {"model": {"accuracy": 0.9}, "other": {"accuracy": 0.7}}}, judged=True)),
        }
        for claim in lesson.claims
    ]
    costs = {"model": {"seconds": [30.0], "peak_memory_mb": 100}, "other": {"seconds": [10.0], "peak_memory_mb": 400}}
    machine = {"processor": "a chip", "cores": 2, "python": "3", "torch": "2", "commit": "abc"}
    record = {
        "date": "today",
        "data": "digits",
        "seeds": [0],
        "seconds": 20,
        "machine": machine,
        "claims": rows,
        "arms": costs,
    }
    (tmp_path / "results.json").write_text(json.dumps({"cpu/cpu": record}))
    for part in lesson.parts:
        (tmp_path / part).mkdir()
    first, second = (part_results(lesson, tmp_path, part) for part in lesson.parts)
    assert "`make lesson-1 PART=first`**: about 15 s per seed and at most 100 MB" in first
    assert "`make lesson-1 PART=second`**: about 5 s per seed and at most 400 MB" in second
    assert "90.0 %" in first
    assert "70.0 %" not in first
    assert "70.0 %" in second
    page = lesson_results(lesson, tmp_path)
    assert "**`make lesson-1`**: about 20 s per seed and at most 400 MB" in page
    assert "| [first](first/README.md) | 0 | 1 | 0 | 1 of 1 | 15 |" in page
    assert "| [second](second/README.md) | 0 | 0 | 1 | 0 of 1 | 5 |" in page
