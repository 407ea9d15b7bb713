"""Fixtures: a course of one lesson, and the site's environment if it is installed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.course.lesson import ROOT
from shared.course.site.browser_tests import require_browser, require_installed
from shared.course.site.environment import BUILD, INTERPRETER

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ffbf1e0005fe02fe"
    "0def46b80000000049454e44ae426082"
)
LESSON = r"""# Lesson 1 · An example

*One line.*

Learn · about 120 minutes · for people who read · [notebook](lesson.ipynb)

## The problem

Inline $z_0 = x_\text{class} E$ and a display:

$$\text{softmax}\!\left(\frac{q k^\top}{\sqrt{d}}\right) v$$

It costs $5, or `$6`. See [below](#key-terms), [the front](../../README.md#how-it-is-laid-out), [code](model/parts.py),
[a folder](model), [a package](../../shared/package/), [another](../../shared/bare).

![A pixel](figures/pixel.png)

| left | right |
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
    """Return the root of a course with a front page, a lesson with code and a notebook, and two packages."""
    files = {
        "README.md": (
            "# A course\n\n[Lesson 1](lessons/lesson_01_example)\n\n## How it is laid out\n\nSo: [MIT](LICENSE).\n"
        ),
        "Dockerfile": "FROM python\n",
        "LICENSE": "Do what you like.\n",
        "lessons/lesson_01_example/README.md": LESSON,
        "lessons/lesson_01_example/model/parts.py": (
            '"""Parts of *it*, `a * b`."""\n\nfrom shared.package import module\n'
        ),
        "lessons/lesson_01_example/lesson.ipynb": (ROOT / "lessons/lesson_01_vit/lesson.ipynb").read_text(
            encoding="utf-8"
        ),
        "lessons/lesson_01_example/notes/README.md": "# Part 1 · Notes\n\n[up](../README.md)\n",
        "shared/package/README.md": "# A package\n\nFor $n$ people, in [a box](../../Dockerfile).\n",
        "shared/bare/module.py": "x = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / "course" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The notebook is lesson 1's, and so are its links.
        path.write_text(text.replace("](README.md)", "](README.md#key-terms)"), encoding="utf-8")
    figure = tmp_path / "course/lessons/lesson_01_example/figures/pixel.png"
    figure.parent.mkdir()
    figure.write_bytes(PIXEL)
    return tmp_path / "course"


@pytest.fixture
def build(tmp_path) -> Callable[[Path], subprocess.CompletedProcess]:
    """Return a function that builds the site of a course into `tmp_path`/site, in the site's environment."""
    require_installed(BUILD)

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
    """Return a function that inspects every page of a built site in Chromium."""
    require_browser()

    def run(site: Path, *words: str) -> dict:
        report = tmp_path / "report.json"
        command = [INTERPRETER, "-m", "shared.course.site.browser", site, report, "--search", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(report.read_text(encoding="utf-8"))

    return run
