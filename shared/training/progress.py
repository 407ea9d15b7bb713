"""A run seen from outside: a bar on a terminal, plain lines in a log, or a small file that a parent process reads."""

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from shared.distributed import is_main
from shared.training.memory import peak_memory

# A job's process finds here the file into which it should report, instead of printing (see jobs.py).
REPORT_VARIABLE = "TRAINING_PROGRESS_FILE"


class Display(Protocol):
    """What shows a run: told after each step how far it is."""

    def update(self, step: int, loss: float, learning_rate: float) -> None: ...

    def close(self) -> None: ...


@dataclass
class Pace:
    """How a run goes: its length, its speed over the last few seconds, its learning rate, its memory.

    Of the last few seconds, so that a slow first step (compilation) is soon forgotten.
    """

    step: int
    steps: int
    unit: str = ""  # what is counted beside steps: tokens, samples, …
    units_per_step: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self):
        self.marks = deque([(time.monotonic(), self.step)], maxlen=25)
        self.learning_rate, self.memory = 0.0, 0

    def mark(self, step: int, learning_rate: float) -> None:
        self.step, self.learning_rate = step, learning_rate
        now = time.monotonic()
        if now - self.marks[-1][0] >= 0.2 or len(self.marks) == 1:
            self.marks.append((now, step))
            self.memory = peak_memory(self.device)

    @property
    def steps_per_second(self) -> float:
        (start, first), (end, last) = self.marks[0], self.marks[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def __str__(self) -> str:
        """What comes last gives way first where the terminal is narrow."""
        speed = self.steps_per_second
        text = pace_text(speed, self.steps - self.step, self.unit, self.units_per_step)
        return f"{text} · lr {self.learning_rate:.1e} · {self.memory / 1e6:,.0f} MB" if speed else text


def open_display(
    label: str, step: int, steps: int, unit: str, units_per_step: int, device: torch.device | None = None
) -> Display:
    """Choose the display for where this process's output goes, and show the run's beginning at once."""
    pace = Pace(step, steps, unit, units_per_step, device or torch.device("cpu"))
    if not is_main():
        return Nothing()
    if report := os.environ.get(REPORT_VARIABLE):
        return ReportFile(Path(report), label, pace)
    if sys.stderr.isatty():
        return TerminalBar(label, pace)
    return PlainLines(label, pace)


def pace_text(steps_per_second: float, steps_left: int, unit: str, units_per_step: int) -> str:
    """Say how long a run has to go and how fast it is: "0:07 left · 52.1 steps/s · 6,669 samples/s"."""
    if not steps_per_second:
        return "starting"
    steps = f"{steps_per_second:.3g} steps/s" if steps_per_second < 100 else f"{steps_per_second:,.0f} steps/s"
    parts = [f"{clock(steps_left / steps_per_second)} left", steps]
    return " · ".join([*parts, f"{steps_per_second * units_per_step:,.0f} {unit}/s"] if units_per_step else parts)


def clock(seconds: float) -> str:
    """Write a duration as 0:07, 12:30 or 2:05:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def bar_columns(names: Sequence[str]) -> tuple[ProgressColumn, ...]:
    """Columns of a live display: name, bar, and a text that gives way (from its end) where the terminal is narrow."""
    room = min(28, max(map(len, names)))
    return (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, width=room)),
        BarColumn(bar_width=12, table_column=Column(no_wrap=True, width=12)),
        _OneLine("{task.fields[state]}", markup=False, table_column=Column()),
    )


class _OneLine(TextColumn):
    """A text that the table may make narrower, but not break into two lines."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class Nothing:
    """What all processes but the main one show."""

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        pass

    def close(self) -> None:
        pass


class TerminalBar:
    """A live bar: label, bar, step, loss, pace."""

    def __init__(self, label: str, pace: Pace):
        self.pace = pace
        label = label or "training"
        self.progress = Progress(*bar_columns([label]), console=Console(stderr=True), refresh_per_second=4)
        state = f"{pace.step}/{pace.steps} · starting"
        self.task = self.progress.add_task(label, total=pace.steps, completed=pace.step, state=state)
        self.progress.start()

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        self.pace.mark(step, learning_rate)
        self.progress.update(
            self.task, completed=step, state=f"{step}/{self.pace.steps} · loss {loss:.4f} · {self.pace}"
        )

    def close(self) -> None:
        self.progress.stop()


class PlainLines:
    """A line now and then: at the start, after 2 s, then at ever longer intervals up to a minute, and at the end."""

    def __init__(self, label: str, pace: Pace):
        self.label, self.pace = label or "training", pace
        self.wait, self.due = 2.0, time.monotonic() + 2.0
        self._print(f"step {pace.step}/{pace.steps}, starting")

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        self.pace.mark(step, learning_rate)
        if (now := time.monotonic()) >= self.due or step == self.pace.steps:
            self.wait = min(60.0, self.wait * 1.5)
            self.due = now + self.wait
            self._print(f"step {step}/{self.pace.steps}, loss {loss:.4f}, {self.pace}")

    def close(self) -> None:
        pass

    def _print(self, text: str) -> None:
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)


class ReportFile:
    """A JSON file, renewed at most four times a second, from which the parent process draws this job's bar."""

    def __init__(self, path: Path, label: str, pace: Pace):
        self.path, self.label, self.pace = path, label, pace
        self.due = 0.0
        self._write(pace.step, None)

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        self.pace.mark(step, learning_rate)
        if time.monotonic() >= self.due or step == self.pace.steps:
            self._write(step, loss)

    def close(self) -> None:
        pass

    def _write(self, step: int, loss: float | None) -> None:
        self.due = time.monotonic() + 0.25
        report = {"label": self.label, "step": step, "steps": self.pace.steps, "loss": loss, "pace": str(self.pace)}
        temporary = self.path.with_name(self.path.name + ".part")
        with contextlib.suppress(OSError):  # a display is never worth ending a run for; the checkpoint will complain
            temporary.write_text(json.dumps(report), encoding="utf-8")
            os.replace(temporary, self.path)
