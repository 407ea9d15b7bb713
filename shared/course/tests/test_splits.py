"""Every claim states the split on which its settings were chosen and the split on which it is measured."""

from dataclasses import replace

import pytest

from shared.course.claims import number
from shared.course.lesson import Arm, Claim, Lesson, lesson_entries, lesson_folder, load_lesson
from shared.course.splits import on_splits, splits_line

CLAIM = Claim("accuracy", "learns", "A sentence.", "", ("model",), number("model", "accuracy"), 0.5)
IDENTITY = replace(CLAIM, name="identity", kind="exact")
VALIDATED = replace(CLAIM, name="seen pairs")
CONTENTS = {"validation": "seen combinations", "test": "unseen ones"}
BUILT = [entry.number for entry in lesson_entries() if lesson_folder(entry.number)]


def test_a_claim_is_measured_on_other_data_than_its_settings_were_chosen_on():
    assert (CLAIM.chosen_on, CLAIM.measured_on) == ("validation", "test")


def test_the_line_counts_claims_per_split_and_leaves_identities_out():
    line = splits_line(on_splits([IDENTITY, CLAIM, VALIDATED], others={"seen pairs": "validation"}), CONTENTS)
    assert line == (
        "**Splits.** Settings chosen on *validation* (seen combinations); measured on *test* (unseen ones; 1 claim) "
        "and *validation* (1 claim)."
    )
    assert splits_line([IDENTITY], CONTENTS) == ""


def test_a_lesson_without_a_validation_split_says_so():
    line = splits_line(on_splits([CLAIM, VALIDATED], chosen_on="", others={"seen pairs": ""}), CONTENTS)
    assert "No split was set aside to choose settings" in line and "no data (1 claim)" in line


def test_a_misspelled_claim_is_refused():
    with pytest.raises(ValueError, match="no claim is called sene"):
        on_splits([CLAIM, VALIDATED], others={"sene": "validation"})


def test_a_split_that_the_lesson_does_not_describe_is_refused():
    with pytest.raises(ValueError, match=r"does not describe: .*held-out"):
        Lesson(
            1,
            (Arm("model", "a:b", {"cpu": {}}),),
            on_splits([CLAIM], measured_on="held-out"),
            "accuracy",
            "accuracy",
            lambda run: {},
            {"cpu": "digits"},
        )


@pytest.mark.parametrize("lesson_number", BUILT)
def test_every_split_of_a_lesson_is_described(lesson_number):
    lesson, _ = load_lesson(lesson_number)
    named = {claim.measured_on for claim in lesson.claims if claim.kind != "exact"} - {""}
    assert all(lesson.splits[split] for split in named)
