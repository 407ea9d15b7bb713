"""Build the course as static pages, with every warning an error (`make site`).

    python -m shared.course.site.build [--output FOLDER] [--work FOLDER]

The pages need no network and no server: search and mathematics are included.
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
from shared.course.site.pages import write_pages
from shared.errors import CourseError

SITE_FOLDER = Path(__file__).parent
# The official build of MathJax 3.2.2, contained in the installed package; conf.py tells the pages where to load it.
# This bundle covers ordinary mathematics. The browser loads rarer TeX commands and screen-reader speech on demand.
MATHJAX = "tex-svg.js"
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
LOADED_ON_DEMAND = (
    "a11y/*.js",
    "sre/mathmaps/base.json",
    "sre/mathmaps/en.json",
    "sre/mathmaps/nemeth.json",
    "input/tex/extensions/*.js",
    "ui/*.js",
)


def copy_mathjax(static: Path) -> None:
    """Copy MathJax and its license into the folder `static`. Raises CourseError for another version."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or not package.submodule_search_locations:
        raise CourseError("MathJax is not installed; build the site with `make site`, which installs it")
    source, target = Path(package.submodule_search_locations[0]) / "static" / "mathjax", static / "mathjax"
    digest = hashlib.sha256((source / MATHJAX).read_bytes()).hexdigest()
    if digest != MATHJAX_SHA256:
        raise CourseError(
            f"{source / MATHJAX} is not the official MathJax 3.2.2 (SHA-256 {digest}); remove .venv-site, run make site"
        )
    for path in [source / MATHJAX, *(path for pattern in LOADED_ON_DEMAND for path in source.glob(pattern))]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    shutil.copyfile(SITE_FOLDER / "MATHJAX-LICENSE", target / "LICENSE")


def build(output: Path, work: Path, root: Path = ROOT) -> int:
    """Build the site of the course at `root` into the folder `output` and return the number of pages.

    Intermediate files are left in `work`. Raises CourseError when a page has an error; the warnings are printed and
    `output` is unchanged.
    """
    if not sys.stderr.isatty():
        nocolor()
    # Start over: Sphinx does not repeat warnings for pages that it has cached.
    shutil.rmtree(work, ignore_errors=True)
    pages = write_pages(root, work / "pages")
    copy_mathjax(work / "static")
    app = Sphinx(
        srcdir=work / "pages",
        confdir=SITE_FOLDER,
        outdir=work / "site",
        doctreedir=work / "doctrees",
        buildername="html",
        confoverrides={"html_static_path": [str(SITE_FOLDER / "static"), str(work / "static")]},
        status=None,
        warning=sys.stderr,
        warningiserror=True,
    )
    app.build()
    if app.statuscode:
        raise CourseError(f"the site has errors, listed above (line numbers refer to {work / 'pages'})")
    # Web servers open a folder's index; relative links work from there too.
    shutil.copyfile(work / "site" / "README.html", work / "site" / "index.html")
    shutil.rmtree(output, ignore_errors=True)
    shutil.move(work / "site", output)
    return pages


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Build the course's site.")
    parser.add_argument("--output", type=Path, default=ROOT / "site")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "site")
    options, started = parser.parse_args(), time.monotonic()
    print("building the site (about half a minute) …", file=sys.stderr)
    pages = build(options.output.resolve(), options.work.resolve())
    print(
        f"{pages} pages in {time.monotonic() - started:.0f} s: open {options.output / 'index.html'}, or make site-serve"
    )


if __name__ == "__main__":
    sys.exit(main())
