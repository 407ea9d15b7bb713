"""Interrupted runs reach bit-identical weights."""

import signal

import pytest
import torch

from shared.training import TrainingInterrupted, read_metrics
from shared.training.tests.small_run import config, loss, run


class CutAt:
    """A loss that calls `action` once, in the middle of a certain step."""

    def __init__(self, step: int, action, accumulate: int = 2):
        self.calls_left, self.action = step * accumulate - 1, action

    def __call__(self, model, batch):
        if self.calls_left == 0:
            self.action()
        self.calls_left -= 1
        return loss(model, batch)


def without_times(history):
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory_mb")} for line in history]


def assert_same_run(folder, result, uncut):
    for model, expected in ((result.model, uncut.model), (result.ema, uncut.ema)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected.state_dict()[name]), name
    assert without_times(result.history) == without_times(uncut.history)
    assert read_metrics(folder / "metrics.jsonl") == result.history


@pytest.mark.parametrize(
    ("step", "optimizer"), [(1, "adamw"), (5, "muon"), (8, "adamw"), (13, "sgd"), (16, "muon"), (23, "adamw")]
)
def test_an_interrupted_run_reaches_bit_identical_weights(tmp_path, step, optimizer):
    settings = config(optimizer=optimizer)
    uncut = run(settings=settings)
    number = signal.SIGTERM if step % 2 else signal.SIGINT
    cut = CutAt(step, lambda: signal.raise_signal(number))
    with pytest.raises(TrainingInterrupted, match=f"after step {step} of 24.*RESUME=1"):
        run(tmp_path, cut, settings=settings)
    torch.rand(11)
    assert_same_run(tmp_path, run(tmp_path, resume=True, settings=settings), uncut)


def test_a_run_cut_twice_reaches_bit_identical_weights(tmp_path):
    uncut = run()
    for step, resume in ((4, False), (3, True)):
        with pytest.raises(TrainingInterrupted):
            run(tmp_path, CutAt(step, lambda: signal.raise_signal(signal.SIGTERM)), resume)
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


@pytest.mark.parametrize("step", [3, 9, 16, 22])
def test_a_run_that_dies_without_saving_continues_from_its_last_checkpoint(tmp_path, step):
    def die():
        raise RuntimeError("power failure")

    uncut = run()
    with pytest.raises(RuntimeError, match="power failure"):
        run(tmp_path, CutAt(step, die))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 22, "lo')  # an incomplete line
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    uncut = run(tmp_path)
    assert_same_run(tmp_path, run(tmp_path, resume=True), uncut)


def test_without_resume_a_run_starts_again(tmp_path):
    run(tmp_path, settings=config(steps=9))
    assert_same_run(tmp_path, run(tmp_path), run())


def test_signal_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path, settings=config(steps=3))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, CutAt(1, lambda: signal.raise_signal(signal.SIGINT)))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_that_was_started_to_ignore_ctrl_c_goes_on(tmp_path):
    """A shell script starts its background commands so: its own Ctrl-C must not stop them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(tmp_path, CutAt(1, lambda: signal.raise_signal(signal.SIGINT)), settings=config(steps=3))
        with pytest.raises(TrainingInterrupted, match="SIGTERM after step 2"):
            run(tmp_path, CutAt(2, lambda: signal.raise_signal(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def press_twice():
        signal.raise_signal(signal.SIGINT)
        while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            pass  # Python handles signals between two instructions; two signals at once would count as one
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, CutAt(2, press_twice))
    finally:
        signal.signal(signal.SIGINT, before)
