"""A generated lesson passes its tests and the course's before anything in it is changed."""

import os
import shutil
import subprocess
import sys

import pytest

from shared.course.lesson import ROOT, lesson_folder
from shared.course.new_lesson.generate import mark_not_measured
from shared.testing import PYTEST

NUMBER = 25
FOLDER = f"lessons/lesson_{NUMBER}_example"
# A copy of the repository is generated and tested in other processes, which takes a minute on a busy machine.
pytestmark = pytest.mark.timeout(900)
COPIED = ("shared", "data", "lessons", "apps", "benchmarks", "tests", "docs", "requirements")
IGNORED = shutil.ignore_patterns("__pycache__", "cache", ".*", "figures")


def run(root, *command):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a copy of the repository with a generated lesson."""
    root = tmp_path_factory.mktemp("course")
    for name in COPIED:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, root / name, ignore=IGNORED)
    for path in ROOT.iterdir():
        # In a work tree of git, .git is a file that names the original: git would change that one's index.
        if path.is_file() and path.name != ".git":
            shutil.copyfile(path, root / path.name)
    command = ("git", "init", "-q", "."), ("git", "add", "-A")
    assert all(run(root, *each).returncode == 0 for each in command)
    done = run(root, sys.executable, "-m", "shared.course.new_lesson.generate", str(NUMBER), "example")
    assert done.returncode == 0, done.stderr
    assert run(root, "git", "add", "-A").returncode == 0
    return root


@pytest.mark.skipif(lesson_folder(NUMBER) is not None, reason=f"lesson {NUMBER} is built")
def test_a_generated_lesson_passes_its_tests_and_the_courses(repository):
    tests = [
        FOLDER,
        *(
            f"tests/test_lesson_structure.py::{name}"
            for name in (
                f"test_every_file_exists[{NUMBER}]",
                f"test_the_pages_have_every_section_and_every_exercise[{NUMBER}]",
                f"test_the_notebook_has_no_error[{NUMBER}]",
                "test_only_lessons_without_results_are_marked_as_not_measured",
            )
        ),
        f"tests/test_docs.py::test_links_and_images_exist[{FOLDER}/README.md]",
        "tests/test_docs.py::test_generated_parts_are_the_recorded_results",
        f"tests/test_mutants.py::test_stubs_fail_with_their_own_error[{NUMBER}]",
        f"tests/test_imports.py::test_each_reference_runs_with_nothing_installed[{FOLDER.replace('/', '.')}.reference]",
    ]
    options = ("-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env")
    done = run(repository, sys.executable, "-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout[-5000:]
    rules = run(repository, *PYTEST, "tests/test_imports.py", "tests/test_terms.py", "-k", FOLDER)
    assert rules.returncode == 0, rules.stdout[-5000:]


@pytest.mark.skipif(lesson_folder(NUMBER) is not None, reason=f"lesson {NUMBER} is built")
def test_a_generated_lesson_is_well_formatted(repository):
    for command in (("check",), ("format", "--check")):
        done = run(repository, sys.executable, "-m", "ruff", *command, FOLDER)
        assert done.returncode == 0, done.stdout
    cache = ROOT / ".mypy_cache"  # from `make lint`; mypy checks again whatever differs from it
    if cache.is_dir():
        shutil.copytree(cache, repository / cache.name)
    done = run(repository, sys.executable, "-m", "mypy", f"{FOLDER}/model")
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(lesson_folder(NUMBER) is not None, reason=f"lesson {NUMBER} is built")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("1", "again"), "lesson 1 exists already: lessons/lesson_01_vit"),
        (("99", "far"), "lesson 99 is not in lessons/lessons.toml"),
        (("24", "Multimodal-RAG"), "'Multimodal-RAG' is not a lesson's name"),
        (("six", "any_resolution"), "lesson 'six' is not a whole number"),
    ],
)
def test_impossible_requests_are_one_line_and_write_nothing(repository, arguments, message):
    done = run(repository, sys.executable, "-m", "shared.course.new_lesson.generate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert run(repository, "git", "diff", "--quiet").returncode == 0


def test_only_the_new_lesson_is_marked(tmp_path):
    path = tmp_path / "lessons.toml"
    path.write_text('[[lesson]]\nnumber = 1\ntitle = "a"\n\n[[lesson]]\nnumber = 12\ntitle = "b"\n')
    mark_not_measured(path, 1)
    assert path.read_text().count("measured = false") == 1
    assert 'title = "a"\nmeasured = false\n' in path.read_text()
