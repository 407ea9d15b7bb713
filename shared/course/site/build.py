"""`make site`: build the whole course as static pages, with every warning an error.

    python -m shared.course.site.build [--into FOLDER] [--work FOLDER]

The pages need nothing but themselves: no network, no server; search and mathematics come along.
"""

import argparse
import hashlib
import importlib.util
import shutil
import sys
import time
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.console import nocolor

from shared.cli import command_line
from shared.course.lesson import ROOT
from shared.course.site.pages import lay_out
from shared.errors import CourseError

HERE = Path(__file__).parent
# What pages ask for is said in conf.py. The official build of version 3.2.2, which the installed package carries: this one bundle needs no other file for
# ordinary mathematics; rarer TeX commands, and speech for those who cannot see it, are read from beside it when asked for.
MATHJAX = "tex-svg.js"
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
BESIDE = ("a11y/*.js", "sre/mathmaps/base.json", "sre/mathmaps/en.json", "sre/mathmaps/nemeth.json")
BESIDE += ("input/tex/extensions/*.js", "ui/*.js")


def lay_out_mathjax(static: Path) -> None:
    """Copy what is needed of MathJax, with its license. Raises CourseError where it is not the version that is pinned."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or not package.submodule_search_locations:
        raise CourseError("MathJax is not installed: build the site with `make site`, which sets up what it needs")
    source, place = Path(package.submodule_search_locations[0]) / "static" / "mathjax", static / "mathjax"
    digest = hashlib.sha256((source / MATHJAX).read_bytes()).hexdigest()
    if digest != MATHJAX_SHA256:
        raise CourseError(f"{source / MATHJAX} is not the official MathJax 3.2.2 (SHA-256 {digest}): remove .venv-site")
    for path in [source / MATHJAX, *(path for pattern in BESIDE for path in source.glob(pattern))]:
        goal = place / path.relative_to(source)
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, goal)
    shutil.copyfile(HERE / "MATHJAX-LICENSE", place / "LICENSE")


def build(into: Path, work: Path, root: Path = ROOT) -> int:
    """Build the site of the course at `root` into a folder, and count its pages. What it is made of is left in `work`.

    Raises CourseError when a page has a fault; the warnings have been printed by then, and `into` is as it was.
    """
    if not sys.stderr.isatty():
        nocolor()
    # Always anew: Sphinx says nothing of the faults of a page that it has read before.
    shutil.rmtree(work, ignore_errors=True)
    pages = lay_out(root, work / "pages")
    lay_out_mathjax(work / "static")
    app = Sphinx(
        srcdir=work / "pages",
        confdir=HERE,
        outdir=work / "site",
        doctreedir=work / "doctrees",
        buildername="html",
        confoverrides={"html_static_path": [str(HERE / "static"), str(work / "static")]},
        status=None,
        warning=sys.stderr,
        warningiserror=True,
    )
    app.build()
    if app.statuscode:
        raise CourseError(f"the site has faults; they stand above (lines are those of {work / 'pages'})")
    # A folder opens with its index; relative links are the same from there.
    shutil.copyfile(work / "site" / "README.html", work / "site" / "index.html")
    shutil.rmtree(into, ignore_errors=True)
    shutil.move(work / "site", into)
    return pages


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Build the course's site.")
    parser.add_argument("--into", type=Path, default=ROOT / "site")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "site")
    asked, started = parser.parse_args(), time.monotonic()
    print("building the site (about half a minute) …", file=sys.stderr)
    pages = build(asked.into.resolve(), asked.work.resolve())
    print(f"{pages} pages in {time.monotonic() - started:.0f} s: open {asked.into / 'index.html'}, or make site-serve")


if __name__ == "__main__":
    sys.exit(main())
