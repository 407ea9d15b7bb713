"""Test that submissions with attacks get no points and do no harm."""

import csv
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.teaching.markers import exercise_code
from shared.teaching.tests import attacks

SETTINGS = '[limits]\ncpu_seconds = 2\nseconds = 10\nmemory_mb = 1024\n[lesson.1]\npoints = { "1.3" = 4 }\n'

TARGET = attacks.TARGETS[1]
LESSON, FILE = "lesson_01_vit", TARGET.file
SOLUTION = (ROOT / FILE).read_text(encoding="utf-8")


def hand_in(folder: Path, text: str) -> None:
    path = folder / FILE
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def connections():
    """A port of this machine, and the connections that it has accepted."""
    server = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def wait():
        while True:
            try:
                accepted.append(server.accept())
            except OSError:
                return

    threading.Thread(target=wait, daemon=True).start()
    yield server.getsockname()[1], accepted
    server.close()


@pytest.fixture(scope="module")
def graded(tmp_path_factory, connections):
    """A class graded by the instructor's command: (its output, the folder of grades, the victim)."""
    place = tmp_path_factory.mktemp("class")
    victim, submissions, out = place / "victim", place / "submissions", place / "out"
    victim.mkdir()
    (victim / "tests.py").write_text("unchanged")
    victim.chmod(0o777)
    places = {"root": str(ROOT), "victim": str(victim), "port": str(connections[0])}
    for name in attacks.ATTACKS:
        body = attacks.attack_body(name, TARGET, **places)
        hand_in(submissions / name, SOLUTION.replace(exercise_code(SOLUTION, "1.3"), body))
    hand_in(submissions / "right", SOLUTION)
    hand_in(submissions / "wrong", SOLUTION.replace("(p q c)", "(q p c)"))
    hand_in(submissions / "on import", f"import os\nos._exit(0)\n{SOLUTION}")
    # Beside a wrong answer: tests that pass, a replacement of pytest, and one of `Student`.
    hand_in(submissions / "own tests", SOLUTION.replace("(p q c)", "(q p c)"))
    for path in (
        "conftest.py",
        "pytest.py",
        "torch.py",
        "shared/course/student.py",
        f"lessons/{LESSON}/tests/test_exercises.py",
    ):
        (submissions / "own tests" / path).parent.mkdir(parents=True, exist_ok=True)
        (submissions / "own tests" / path).write_text("raise SystemExit(0)\n")
    linked = submissions / "a link" / FILE
    linked.parent.mkdir(parents=True)
    linked.symlink_to(ROOT / FILE)
    with zipfile.ZipFile(submissions / "zipped.zip", "w") as archive:
        archive.writestr(f"lesson_01_vit/{FILE}", SOLUTION)
        archive.writestr("../../escaped.py", "")
    (place / "course.toml").write_text(SETTINGS)
    command = [sys.executable, "-m", "shared.teaching.grade", "1", str(submissions), "--workers", "1"]
    command += ["--out", str(out), "--settings", str(place / "course.toml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, out, victim


@pytest.fixture(scope="module")
def enforced(graded):
    return json.loads((graded[1] / "grades.json").read_text())["enforced"]


def result(graded, name):
    return json.loads((graded[1] / "grades.json").read_text())["submissions"][name]["exercises"]["1.3"]


@pytest.mark.parametrize("name", ["right", "zipped"])
def test_solution_gets_the_points(graded, name):
    assert result(graded, name)["passed"] == result(graded, name)["tests"] == 5
    rows = {row["submission"]: row for row in csv.DictReader((graded[1] / "grades.csv").open())}
    assert rows[name]["points"] == rows[name]["1.3"] == "4"


# The protection that stops each of these attacks; the others fail by themselves.
REQUIRED_PROTECTION = {
    "reads the checkout": "reading the checkout",
    "imports the checkout": "reading the checkout",
    "asks for the installed course": "reading the checkout",
}
OTHERS = ("wrong", "on import", "own tests", "a link")


@pytest.mark.parametrize("name", [*attacks.ATTACKS, *OTHERS])
def test_attack_gets_no_points(graded, enforced, name):
    if not enforced.get(REQUIRED_PROTECTION.get(name), True):
        pytest.skip("this machine can't hide the checkout, and the grader says so")
    assert result(graded, name)["passed"] < 5
    rows = {row["submission"]: row for row in csv.DictReader((graded[1] / "grades.csv").open())}
    assert rows[name]["points"] == rows[name]["1.3"] == "0"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exits", "has ended: exit 0"),
        ("loops", "more than 2 s of CPU time"),
        ("loops on", "more than 2 s of CPU time"),
        ("sleeps", "longer than 10 s"),
        ("returns a huge answer", "TypeCheckError"),
        ("crashes", "crashed"),
        ("fills memory", "MemoryError"),
        ("skips", "Skipped"),
        ("equals everything", "TypeCheckError"),
        ("uses the reference", "exercise 1.1"),
        ("a link", "not a plain file"),
        ("on import", "has ended: exit 0"),
    ],
)
def test_feedback_gives_the_reason(graded, enforced, name, message):
    if name == "fills memory" and not enforced["memory"]:
        pytest.skip("this machine sets no limit on memory, and the grader says so")
    assert message in result(graded, name)["message"]
    assert message.split()[-1] in (graded[1] / "feedback" / f"{name}.md").read_text()


def test_files_outside_are_unchanged(graded, enforced, connections):
    if not enforced["touching files"]:
        pytest.skip("this machine can't protect files, and the grader says so")
    _, _, victim = graded
    assert sorted(path.name for path in victim.iterdir()) == ["tests.py"]
    assert (victim / "tests.py").read_text() == "unchanged"
    assert (victim / "tests.py").stat().st_mode & 0o777 != 0o777
    if sys.platform == "linux":
        assert os.listxattr(victim / "tests.py") == []
    assert not (victim.parent.parent / "escaped.py").exists() and not Path("/tmp/full").exists()
    if enforced["network"]:
        assert connections[1] == []


def test_attack_cannot_write_to_the_terminal(graded):
    assert "✓✓✓" not in graded[0] and "xxx" not in graded[0] and "\x1b" not in graded[0]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Landlock and seccomp")
def test_every_protection_of_linux_holds(enforced):
    """Determined from within a student's process. A kernel without Landlock (before 5.13) hides no files."""
    from shared.teaching.isolation import landlock, seccomp

    expected = {"writing to disk", "memory"}
    expected |= {"reading the checkout", "touching files"} if landlock.version() else set()
    expected |= {"new processes", "signals to others", "network"} if seccomp.supported() else set()
    assert {name for name, holds in enforced.items() if holds} >= expected
