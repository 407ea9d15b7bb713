"""A class with one honest student and many who try everything else: nobody gains by it, and nothing is harmed."""

import csv
import json
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.teaching.markers import part
from shared.teaching.tests import attacks as hostile

SETTINGS = '[limits]\ncpu_seconds = 2\nseconds = 10\nmemory_mb = 1024\n[lesson.1]\npoints = { "1.3" = 4 }\n'

TARGET = hostile.TARGETS[1]
LESSON, FILE = "lesson_01_vit", TARGET.file
HONEST = (ROOT / FILE).read_text(encoding="utf-8")


def hand_in(folder: Path, text: str) -> None:
    path = folder / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def visitors():
    """A door on this machine, and how many have come through it."""
    listener = socket.create_server(("127.0.0.1", 0))
    came = []

    def wait():
        while True:
            try:
                came.append(listener.accept())
            except OSError:
                return

    threading.Thread(target=wait, daemon=True).start()
    yield listener.getsockname()[1], came
    listener.close()


@pytest.fixture(scope="module")
def graded(tmp_path_factory, visitors):
    """The whole class, graded by the command that an instructor types: (its folder, what it has written, the victim)."""
    place = tmp_path_factory.mktemp("class")
    victim, many, out = place / "victim", place / "many", place / "out"
    victim.mkdir()
    (victim / "tests.py").write_text("as it was")
    victim.chmod(0o777)
    places = {"root": str(ROOT), "victim": str(victim), "port": str(visitors[0])}
    for name in hostile.TRICKS:
        hand_in(many / name, HONEST.replace(part(HONEST, "1.3"), hostile.body(name, TARGET, **places)))
    hand_in(many / "right", HONEST)
    hand_in(many / "wrong", HONEST.replace("(p q c)", "(q p c)"))
    hand_in(many / "on import", f"import os\nos._exit(0)\n{HONEST}")
    # Beside a wrong answer: tests that pass, a pytest that is none, and another border between tests and code.
    hand_in(many / "own tests", HONEST.replace("(p q c)", "(q p c)"))
    for path in (
        "conftest.py",
        "pytest.py",
        "torch.py",
        "shared/course/student.py",
        f"lessons/{LESSON}/tests/test_exercises.py",
    ):
        (many / "own tests" / path).parent.mkdir(parents=True, exist_ok=True)
        (many / "own tests" / path).write_text("raise SystemExit(0)\n")
    linked = many / "a link" / FILE
    linked.parent.mkdir(parents=True)
    linked.symlink_to(ROOT / FILE)
    with zipfile.ZipFile(many / "zipped.zip", "w") as archive:
        archive.writestr(f"lesson_01_vit/{FILE}", HONEST)
        archive.writestr("../../escaped.py", "")
    (place / "course.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "shared.teaching.grade", "1", str(many), "--workers", "1"]
    command += ["--out", str(out), "--settings", str(place / "course.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, out, victim


@pytest.fixture(scope="module")
def held(graded):
    return json.loads((graded[1] / "grades.json").read_text())["enforced"]


def exercise(graded, name):
    return json.loads((graded[1] / "grades.json").read_text())["submissions"][name]["exercises"]["1.3"]


@pytest.mark.parametrize("name", ["right", "zipped"])
def test_who_has_solved_it_gets_the_points(graded, name):
    assert exercise(graded, name)["passed"] == exercise(graded, name)["tests"] == 5
    rows = {row["submission"]: row for row in csv.DictReader((graded[1] / "grades.csv").open())}
    assert rows[name]["points"] == rows[name]["1.3"] == "4"


# What each trick needs to be kept from, where the others fail by themselves.
NEEDS = {"reads the checkout": "reading the checkout", "imports the checkout": "reading the checkout",
         "asks for the installed course": "reading the checkout"}  # fmt: skip
OTHERS = ("wrong", "on import", "own tests", "a link")


@pytest.mark.parametrize("name", [*hostile.TRICKS, *OTHERS])
def test_nobody_else_does(graded, held, name):
    if not held.get(NEEDS.get(name), True):
        pytest.skip("this machine can't hide the checkout, and the grader says so")
    assert exercise(graded, name)["passed"] < 5
    rows = {row["submission"]: row for row in csv.DictReader((graded[1] / "grades.csv").open())}
    assert rows[name]["points"] == rows[name]["1.3"] == "0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exits", "has ended: exit 0"),
        ("loops", "more than 2 s of work"),
        ("loops on", "more than 2 s of work"),
        ("sleeps", "longer than 10 s"),
        ("crashes", "crashed"),
        ("fills memory", "MemoryError"),
        ("skips", "Skipped"),
        ("equals everything", "TypeCheckError"),
        ("takes its twin", "exercise 1.1"),
        ("a link", "no plain file"),
        ("on import", "has ended: exit 0"),
    ],
)
def test_the_student_is_told_what_happened(graded, held, name, said):
    if name == "fills memory" and not held["memory"]:
        pytest.skip("this machine sets no limit on memory, and the grader says so")
    assert said in exercise(graded, name)["said"]
    assert said.split()[-1] in (graded[1] / "feedback" / f"{name}.md").read_text()


def test_what_was_outside_is_as_it_was(graded, held, visitors):
    if not held["touching files"]:
        pytest.skip("this machine can't protect files, and the grader says so")
    _, _, victim = graded
    assert sorted(path.name for path in victim.iterdir()) == ["tests.py"]
    assert (victim / "tests.py").read_text() == "as it was"
    assert (victim / "tests.py").stat().st_mode & 0o777 != 0o777
    assert not (victim.parent.parent / "escaped.py").exists() and not Path("/tmp/full").exists()
    if held["network"]:
        assert visitors[1] == []


def test_nobody_writes_on_the_instructors_screen(graded):
    assert "✓✓✓" not in graded[0] and "xxx" not in graded[0] and "\x1b" not in graded[0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Landlock and seccomp")
def test_all_that_linux_can_hold_is_held_here(held):
    """Tried from within a student's process, not assumed. A kernel without Landlock (before 5.13) hides no files."""
    from shared.teaching.isolation import landlock, seccomp

    expected = {"writing to disk", "memory"}
    expected |= {"reading the checkout", "touching files"} if landlock.version() else set()
    expected |= {"new processes", "signals to others", "network"} if seccomp.supported() else set()
    assert {what for what, holds in held.items() if holds} >= expected
