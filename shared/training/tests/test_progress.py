import json

import pytest

from shared.training import progress
from shared.training.progress import FileDisplay, LineDisplay, Pace, format_duration, format_pace, open_display


class FakeClock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def fake_clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(progress, "peak_memory", lambda device: 1_234_000_000)
    return clock


def test_durations():
    assert [format_duration(seconds) for seconds in (0, 7.4, 59.6, 754, 7500)] == [
        "0:00",
        "0:07",
        "1:00",
        "12:34",
        "2:05:00",
    ]


def test_pace():
    assert format_pace(0.0, 10, "tokens", 5) == "starting"
    assert format_pace(4.0, 30, "", 0) == "0:08 left · 4 steps/s"
    assert format_pace(250.0, 1000, "samples", 128) == "0:04 left · 250 steps/s · 32,000 samples/s"


def test_a_slow_first_step_stops_to_count(fake_clock):
    pace = Pace(0, 40)
    fake_clock.now += 60  # compiling
    pace.mark(1, 0.1)
    for step in range(2, 40):
        fake_clock.now += 0.5
        pace.mark(step, 0.1)
    assert pace.steps_per_second == pytest.approx(2.0)


def test_plain_lines_start_at_once_and_become_rare(fake_clock, capsys):
    display = LineDisplay("student", Pace(0, 1000, "samples", 10))
    assert capsys.readouterr().err == "student: step 0/1000, starting\n"
    times = []
    for step in range(1, 1001):
        fake_clock.now += 0.5
        display.update(step, 1.25, 3e-4)
        if lines := capsys.readouterr().err:
            times.append(step / 2)
            assert lines.startswith(f"student: step {step}/1000, loss 1.2500, ")
            assert lines.endswith(" left · 2 steps/s · 20 samples/s · lr 3.0e-04 · 1,234 MB\n")
    assert times[:3] == [2.0, 5.0, 9.5] and times[-1] == 500.0 and len(times) < 20


def test_a_report_is_small_and_not_written_at_every_step(fake_clock, tmp_path):
    path = tmp_path / "progress.json"
    display = FileDisplay(path, "student", Pace(3, 40))
    assert json.loads(path.read_text()) == {
        "label": "student",
        "step": 3,
        "steps": 40,
        "loss": None,
        "pace": "starting",
    }
    reported_steps = set()
    for step in range(4, 41):
        fake_clock.now += 0.1
        display.update(step, 0.5, 3e-4)
        reported_steps.add(json.loads(path.read_text())["step"])
    assert 40 in reported_steps and 10 < len(reported_steps) < 16
    assert json.loads(path.read_text())["pace"] == "0:00 left · 10 steps/s · lr 3.0e-04 · 1,234 MB"
    path.unlink()
    tmp_path.rmdir()
    display.update(40, 0.5, 3e-4)  # the folder is gone, which must not end a run


def test_the_display_suits_the_output(monkeypatch, tmp_path, capsys):
    assert isinstance(open_display("", Pace(0, 10)), LineDisplay)
    monkeypatch.setenv(progress.REPORT_VARIABLE, str(tmp_path / "progress.json"))
    assert isinstance(open_display("", Pace(0, 10)), FileDisplay)


def test_the_bar_on_a_terminal_is_drawn(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = open_display("student", Pace(0, 10, "samples", 32))
    assert isinstance(bar, progress.BarDisplay)
    for step in range(1, 11):
        bar.update(step, 0.5, 3e-4)
    bar.close()
    assert "student" in capsys.readouterr().err
