"""A course of one lesson, and the site's own environment where there is one."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.course.site.chromium import chromium
from shared.course.site.environment import BROWSER, BUILD, INTERPRETER, is_ready

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ffbf1e0005fe02fe"
    "0def46b80000000049454e44ae426082"
)
LESSON = r"""# Lesson 1 · An example

*One line.*

Learn · about 120 minutes · for people who read · [notebook](lesson.ipynb)

## The problem

Inline $z_0 = x_\text{class} E$ and, of its own:

$$\text{softmax}\!\left(\frac{q k^\top}{\sqrt{d}}\right) v$$

It costs $5, or `$6`. See [below](#key-terms), [the front](../../README.md#how-it-is-laid-out), [code](model/parts.py),
[a folder](model), [a room](../../shared/room/), [another](../../shared/bare).

![A pixel](figures/pixel.png)

| here | there |
|---|---|
| `[batch, width]` | ~~old~~ **new** |

<details><summary>Hints</summary>

* first: **look**
* then: $x^2$

</details>

## Key terms

{role}`text` stays as it is, and so does
% this line.
"""


@pytest.fixture
def course(tmp_path) -> Path:
    """The root of a course with a front page, a lesson with code and a notebook, and two rooms."""
    files = {
        "README.md": "# A course\n\n[Lesson 1](lessons/lesson_01_example)\n\n## How it is laid out\n\nSo: [MIT](LICENSE).\n",
        "Dockerfile": "FROM python\n",
        "LICENSE": "Do what you like.\n",
        "lessons/lesson_01_example/README.md": LESSON,
        "lessons/lesson_01_example/model/parts.py": '"""Parts of *it*, `a * b`."""\n\nfrom shared.room import door\n',
        "lessons/lesson_01_example/lesson.ipynb": (ROOT / "lessons/lesson_01_vit/lesson.ipynb").read_text(
            encoding="utf-8"
        ),
        "lessons/lesson_01_example/notes/README.md": "# Part 1 · Notes\n\n[up](../README.md)\n",
        "shared/room/README.md": "# A room\n\nFor $n$ people, in [a box](../../Dockerfile).\n",
        "shared/bare/thing.py": "x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / "course" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The notebook's links are lesson 1's own.
        path.write_text(text.replace("](README.md)", "](README.md#key-terms)"), encoding="utf-8")
    figure = tmp_path / "course/lessons/lesson_01_example/figures/pixel.png"
    figure.parent.mkdir()
    figure.write_bytes(PIXEL)
    return tmp_path / "course"


def need(there: object, otherwise: str) -> None:
    """Say what is missing and skip; under `make test-site`, whose job this is, fail."""
    if not there:
        (pytest.fail if os.environ.get("SITE") == "must" else pytest.skip)(otherwise)


def need_installed(pins: str) -> None:
    need(
        is_ready(pins),
        f"requirements/{pins} is not installed for this Python: make test-site installs it and runs this",
    )


def need_chromium() -> None:
    need(
        chromium(), "there is no Chromium or Chrome on this machine: install one, or name it with CHROMIUM=/path/to/it"
    )


@pytest.fixture
def build(tmp_path) -> Callable[[Path], subprocess.CompletedProcess]:
    """Builds the site of a course into `tmp_path`/site, in the site's own environment."""
    need_installed(BUILD)

    def run(root: Path) -> subprocess.CompletedProcess:
        code = (
            "import sys; from pathlib import Path; from shared.course.site.build import build; "
            "build(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[1]))"
        )
        command = [INTERPRETER, "-c", code, root, tmp_path / "site", tmp_path / "work"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def browse(tmp_path) -> Callable[..., dict]:
    """Looks at every page of a built site in Chromium."""
    need_installed(BROWSER)
    need_chromium()

    def run(site: Path, *words: str) -> dict:
        report = tmp_path / "report.json"
        command = [INTERPRETER, "-m", "shared.course.site.browser", site, report, "--search", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(report.read_text(encoding="utf-8"))

    return run
