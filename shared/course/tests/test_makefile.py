"""Make passes every option on unchanged, and a target of a lesson that does not exist is one line."""

import json
import shlex
import subprocess
import sys

import pytest

from shared.course.lesson import ROOT
from shared.testing import environment_without_make

HANDOUT = ROOT / "shared" / "teaching" / "handout" / "Makefile"
SIGNS = "a b;echo injected 'x' \"y\" $HOME `id` (c) & d"


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run make without the set-up, in an environment without the options of the make that runs the tests."""
    options = {"DATA", "PART", "DEVICE", "RESUME", "SEED", "SEEDS", "PRESET", "WORKERS", "LESSON", "OWN", "PORT"}
    environment = {name: value for name, value in environment_without_make().items() if name not in options}
    command = ["make", "--no-print-directory", "-o", "setup", *arguments]
    command += [f"{name}={value}" for name, value in variables.items()]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def arguments_of(tmp_path):
    """Return a function that gives the arguments that a target passes to Python."""
    program = tmp_path / "show arguments.py"
    program.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))")
    python = f"{shlex.quote(sys.executable)} {shlex.quote(str(program))}"

    def run(target: str, *arguments: str, **variables: str) -> list[str]:
        done = make(target, *arguments, RUN=python, PYTHON=sys.executable, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


LESSON = ["-m", "shared.course.run", "1"]


@pytest.mark.parametrize(
    ("target", "variables", "expected"),
    [
        ("lesson-1", {}, [*LESSON, "--seeds=0", "--preset=cpu"]),
        ("lesson-1", {"PRESET": "full"}, [*LESSON, "--seeds=0 1 2", "--preset=full"]),
        ("lesson-1", {"DATA": SIGNS}, [*LESSON, "--seeds=0", "--preset=cpu", f"--data={SIGNS}"]),
        ("lesson-1", {"PART": SIGNS}, [*LESSON, "--seeds=0", "--preset=cpu", f"--part={SIGNS}"]),
        ("lesson-1", {"DEVICE": "-x y"}, [*LESSON, "--seeds=0", "--preset=cpu", "--device=-x y"]),
        ("lesson-1", {"SEED": "-1"}, [*LESSON, "--seeds=-1", "--preset=cpu"]),
        ("lesson-1", {"SEED": "", "PRESET": ""}, [*LESSON, "--seeds=", "--preset="]),
        ("lesson-1", {"RESUME": "1"}, [*LESSON, "--seeds=0", "--preset=cpu", "--resume"]),
        ("lesson-1", {"RESUME": "0"}, [*LESSON, "--seeds=0", "--preset=cpu"]),
        ("lesson-1", {"RESUME": "no"}, [*LESSON, "--seeds=0", "--preset=cpu"]),
        ("results-1", {}, ["-m", "shared.course.results", "1", "--seeds=0 1 2", "--preset=cpu"]),
        ("lesson-1;id", {}, ["-m", "shared.course.run", "1;id", "--seeds=0", "--preset=cpu"]),
        ("check-1;id", {}, ["-m", "shared.teaching.check", "1;id"]),
        ("assign-1", {"OWN": "0"}, ["-m", "shared.teaching.assign", "1"]),
        ("assign-1", {"OWN": "1"}, ["-m", "shared.teaching.assign", "1", "--own"]),
        ("grade-1", {"SUBMISSION": SIGNS}, ["-m", "shared.teaching.grade", "1", SIGNS, "--workers=2"]),
        ("serve", {"ASSISTANT": SIGNS}, ["-m", "apps.assistant", "serve", SIGNS, "--port=8000"]),
        ("new-lesson", {"N": "6", "NAME": SIGNS}, ["-m", "shared.course.new_lesson.generate", "6", SIGNS]),
        ("mutants", {"LESSON": SIGNS}, ["-m", "shared.teaching.mutation", SIGNS]),
    ],
)
def test_an_option_reaches_the_program_unchanged(arguments_of, target, variables, expected):
    assert arguments_of(target, **variables) == expected


def test_a_python_with_a_space_in_its_path_is_used(tmp_path):
    python = tmp_path / "my tools" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    done = make("reference-0", PYTHON=str(python), PART="nothing")
    assert "lesson 0 has no part 'nothing'" in done.stderr


@pytest.mark.parametrize("target", ["test", "reference", "notebook"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("99", "error: lesson 99 is not in this course; built so far: 0"),
        ("25", "error: lesson 25 is planned, not built yet; built so far: 0"),
        ("x", "error: lesson 'x' is not a whole number"),
    ],
)
def test_a_target_of_no_lesson_is_one_line(target, number, message):
    done = make(f"{target}-{number}", PYTHON=sys.executable, RUN=f"{shlex.quote(sys.executable)} -c 'print(1)'")
    assert done.returncode == 2 and done.stdout == ""
    error, failed_target = done.stderr.splitlines()
    assert error.startswith(message) and failed_target.startswith("make: ***")


def test_the_students_makefile_quotes_its_options(tmp_path, arguments_of):
    text = HANDOUT.read_text().replace("{number}", "1").replace("{lesson}", "lesson_01_vit").replace("{earlier}", "/")
    (tmp_path / "Makefile").write_text(text)
    arguments = arguments_of("lesson", "-C", str(tmp_path), SEED="0 $HOME;id", RESUME="0")
    assert arguments == [*LESSON, "--preset=cpu", "--seeds=0 $HOME;id"]
    assert arguments_of("lesson", "-C", str(tmp_path), RESUME="1")[-1] == "--resume"


def test_help_groups_the_targets_by_reader():
    lines = make().stdout.splitlines()
    groups = [line for line in lines if line.startswith("For ")]
    assert groups == ["For learners", "For instructors", "For developers"]
    group_of = {line.split()[1]: group for group in groups for line in section(lines, group)}
    assert group_of["lesson-N"] == group_of["doctor"] == "For learners"
    assert group_of["grade-N"] == "For instructors" and group_of["test"] == group_of["results-N"] == "For developers"


def section(lines: list[str], title: str) -> list[str]:
    """Return the lines of a group of `make help`."""
    rest = lines[lines.index(title) + 1 :]
    return rest[: rest.index("")]
