import time

from shared.training.slow_worker import Stopwatch, complaint, slowest


def test_the_stopwatch_leaves_out_what_was_waiting(monkeypatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    watch.go_on()  # nothing is open: this is somebody's evaluation
    with watch:
        watch.pause()  # 2 seconds of work, then 3 of waiting
        watch.go_on()  # 1 second of work
    with watch:
        pass  # 1 second more
    assert watch.take() == 4.0 and watch.take() == 0.0


def test_the_slowest_is_compared_with_the_median_of_the_others():
    assert slowest([1.0, 6.0, 2.0, 3.0]) == (1, 3.0)
    assert slowest([4.0, 1.0]) == (0, 4.0)


def test_a_slow_process_is_named_when_it_matters():
    hosts = ["a", "b", "c"]
    message = complaint([1.0, 3.0, 1.0], hosts, seconds=4.0)
    assert "process 1 on b is slow" in message and "3.0 times" in message and "50% of the time" in message
    assert complaint([1.0, 1.4, 1.0], hosts, seconds=1.5) is None  # within what machines differ by
    assert complaint([0.1, 0.3, 0.1], hosts, seconds=4.0) is None  # most of the step is something else
