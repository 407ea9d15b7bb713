"""The helpers of tests notice what they look for."""

import pytest

from shared.testing import has_curve, quick_run


def test_a_reference_that_fails_is_noticed():
    with pytest.raises(AssertionError, match="No module named"):
        quick_run("lessons.lesson_00_foundations.missing.reference")


def test_a_module_that_prints_nothing_is_noticed():
    with pytest.raises(AssertionError, match="a reference prints"):
        quick_run("shared.stdlib.tensor")


@pytest.mark.parametrize(
    ("printed", "curve"),
    [
        ("loss   #*+=-.__", True),
        ("loss: 4.1 -> 2.0", False),
        ("accuracy\n--------", False),
        ("____ bits_per_byte", False),
        ("", False),
    ],
)
def test_a_curve_is_told_from_other_text(printed, curve):
    assert has_curve(printed) == curve
