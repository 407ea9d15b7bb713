"""Settings of the training loop."""

import pytest

from shared.training.tests.small_run import config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choose one of adamw, muon, sgd"),
        ({"schedule": "linear"}, "schedule is 'linear'; choose one of constant, cosine, wsd"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"warmup_steps": 25}, "between 0 and steps = 24"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"accumulate": 0}, "accumulate is 0"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)
