"""The progress of a run: a bar on a terminal, plain lines in a log, or a small file that a parent process reads."""

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

# If this variable names a file, a run reports its progress there instead of printing it (see shared/course/jobs.py).
REPORT_VARIABLE = "TRAINING_PROGRESS_FILE"


class Display(Protocol):
    """Show a run's progress. The loop calls `update` after each step."""

    def update(self, step: int, loss: float, learning_rate: float) -> None: ...

    def close(self) -> None: ...


@dataclass
class Pace:
    """Track a run's length, its speed over the last few seconds, its learning rate and its memory.

    The speed covers only the last few seconds, so that a slow first step (compilation) soon stops to count.

    unit            what is counted besides steps: tokens, samples, …
    units_per_step  how many of them a step processes
    """

    step: int
    steps: int
    unit: str = ""
    units_per_step: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self.marks = deque([(time.monotonic(), self.step)], maxlen=25)
        self.learning_rate, self.memory = 0.0, 0

    def mark(self, step: int, learning_rate: float) -> None:
        """Record that a step has ended."""
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
        """Return the pace as text; a narrow terminal cuts it from the end."""
        speed = self.steps_per_second
        text = format_pace(speed, self.steps - self.step, self.unit, self.units_per_step)
        return f"{text} · lr {self.learning_rate:.1e} · {self.memory / 1e6:,.0f} MB" if speed else text


def open_display(label: str, pace: Pace) -> Display:
    """Choose the display that suits this process's output, and show the start of the run at once."""
    if not is_main():
        return NoDisplay()
    if report := os.environ.get(REPORT_VARIABLE):
        return FileDisplay(Path(report), label, pace)
    if sys.stderr.isatty():
        return BarDisplay(label, pace)
    return LineDisplay(label, pace)


def format_pace(steps_per_second: float, steps_left: int, unit: str, units_per_step: int) -> str:
    """Format the time left and the speed of a run: "0:07 left · 52.1 steps/s · 6,669 samples/s"."""
    if not steps_per_second:
        return "starting"
    steps = f"{steps_per_second:.3g} steps/s" if steps_per_second < 100 else f"{steps_per_second:,.0f} steps/s"
    parts = [f"{format_duration(steps_left / steps_per_second)} left", steps]
    return " · ".join([*parts, f"{steps_per_second * units_per_step:,.0f} {unit}/s"] if units_per_step else parts)


def format_duration(seconds: float) -> str:
    """Format a duration as 0:07, 12:30 or 2:05:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def bar_columns(names: Sequence[str]) -> tuple[ProgressColumn, ...]:
    """Return the columns of a live display: name, bar, and a text that a narrow terminal cuts from its end."""
    width = min(28, max(map(len, names)))
    return (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, width=width)),
        BarColumn(bar_width=12, table_column=Column(no_wrap=True, width=12)),
        _OneLine("{task.fields[state]}", markup=False, table_column=Column()),
    )


class _OneLine(TextColumn):
    """A text that the table may make narrower, but not break into two lines."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class NoDisplay:
    """Show nothing, in all processes but the main one."""

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        pass

    def close(self) -> None:
        pass


class BarDisplay:
    """Show a live bar: label, bar, step, loss, pace."""

    def __init__(self, label: str, pace: Pace):
        self.pace = pace
        label = label or "training"
        self.progress = Progress(*bar_columns([label]), console=Console(stderr=True), refresh_per_second=4)
        state = f"{pace.step}/{pace.steps} · starting"
        self.task = self.progress.add_task(label, total=pace.steps, completed=pace.step, state=state)
        self.progress.start()

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        self.pace.mark(step, learning_rate)
        state = f"{step}/{self.pace.steps} · loss {loss:.4f} · {self.pace}"
        self.progress.update(self.task, completed=step, state=state)

    def close(self) -> None:
        self.progress.stop()


class LineDisplay:
    """Print a line at the start, after 2 s, then at growing intervals of up to a minute, and at the end."""

    def __init__(self, label: str, pace: Pace):
        self.label, self.pace = label or "training", pace
        self.interval, self.due = 2.0, time.monotonic() + 2.0
        self._print(f"step {pace.step}/{pace.steps}, starting")

    def update(self, step: int, loss: float, learning_rate: float) -> None:
        self.pace.mark(step, learning_rate)
        if (now := time.monotonic()) >= self.due or step == self.pace.steps:
            self.interval = min(60.0, self.interval * 1.5)
            self.due = now + self.interval
            self._print(f"step {step}/{self.pace.steps}, loss {loss:.4f}, {self.pace}")

    def close(self) -> None:
        pass

    def _print(self, text: str) -> None:
        print(f"{self.label}: {text}", file=sys.stderr, flush=True)


class FileDisplay:
    """Write a JSON file, at most four times per second, from which the parent process draws this job's bar."""

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
        with contextlib.suppress(OSError):  # a display must not end a run; the checkpoint will report a full disk
            temporary.write_text(json.dumps(report), encoding="utf-8")
            os.replace(temporary, self.path)
