import math

import pytest

from shared.training.schedules import SCHEDULES, constant, cosine, warmup_stable_decay


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_linear_and_never_starts_at_zero(name):
    rates = [SCHEDULES[name](step, 100, 4) for step in range(4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_full_rate(name):
    assert SCHEDULES[name](0, 100, 0) == 1.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_rate_is_positive_and_none_exceeds_the_peak(name):
    for steps, warmup_steps in [(1, 0), (1, 1), (2, 1), (7, 7), (50, 10)]:
        assert all(0 < SCHEDULES[name](step, steps, warmup_steps) <= 1 for step in range(steps))


def test_constant_stays():
    assert [constant(step, 10, 2) for step in (2, 5, 9)] == [1.0, 1.0, 1.0]


def test_cosine_is_half_way_down_in_the_middle_and_at_zero_after_the_end():
    assert cosine(10, 110, 10) == 1.0
    assert cosine(60, 110, 10) == pytest.approx(0.5)
    assert cosine(85, 110, 10) == pytest.approx(0.5 * (1 - math.sqrt(0.5)))
    assert cosine(110, 110, 10) == pytest.approx(0.0)
    assert cosine(500, 110, 10) == pytest.approx(0.0)


def test_warmup_stable_decay_is_constant_until_the_last_fifth():
    assert [warmup_stable_decay(step, 100, 5) for step in (5, 40, 80)] == [1.0, 1.0, 1.0]
    assert warmup_stable_decay(90, 100, 5) == pytest.approx(0.5)
    assert warmup_stable_decay(99, 100, 5) == pytest.approx(1 / 20)
    assert warmup_stable_decay(100, 100, 5) == 0.0


def test_the_stable_phase_does_not_depend_on_the_length_of_the_run():
    assert all(warmup_stable_decay(step, 100, 9) == warmup_stable_decay(step, 10_000, 9) for step in range(80))
