"""What a log is read back as."""

import pytest

from shared.training import curve_from_history


def test_a_curve_from_a_log():
    history = [{"step": 5, "loss": 2.0}, {"step": 6, "evaluation/error": 0.5}, {"step": 10, "loss": None}]
    assert curve_from_history(history, "loss") == ([5], [2.0])
    with pytest.raises(ValueError, match="'accuracy'; there are evaluation/error, loss, step"):
        curve_from_history(history, "accuracy")
