"""The site is built without a warning, and a real browser displays its pages correctly.

These tests need what `make test-site` installs, and Chromium; without them they are skipped with a reason.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from shared.course.lesson import ROOT
from shared.course.site.pages import Course

# Building and browsing take a few seconds of work; how long that is depends on the machine.
pytestmark = pytest.mark.timeout(0)


class Links(HTMLParser):
    """The anchors and link targets of a page."""

    def __init__(self, page: Path):
        super().__init__()
        self.anchors, self.targets = set(), set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors.add(values.get("id"))
        self.targets.add(values.get("href") if tag in ("a", "link") else values.get("src"))


def dead_links(site: Path) -> list[str]:
    """Return every link and image of a built site whose file or anchor does not exist."""
    pages, dead = {page: Links(page) for page in site.rglob("*.html")}, []
    for page, links in pages.items():
        for target in links.targets - {None, ""}:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            path = (page.parent / unquote(url.path)).resolve() if url.path else page
            missing = not path.is_file() or (url.fragment and path in pages and url.fragment not in pages[path].anchors)
            if missing:
                dead.append(f"{page.relative_to(site)} → {target}")
    return dead


def test_markdown_is_rendered_as_on_github(course, build, tmp_path):
    (course / "dist").mkdir()
    (course / "dist/lesson_01_example.zip").write_bytes(b"zip")
    done = build(course)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert dead_links(site) == []
    page = (site / "lessons/lesson_01_example/README.html").read_text(encoding="utf-8")
    assert 'href="model/parts.py.html"' in page and 'href="model/files.html"' in page
    assert 'href="../../shared/package/README.html"' in page and 'href="../../shared/bare/files.html"' in page
    assert 'href="../../README.html#how-it-is-laid-out"' in page and 'href="#key-terms"' in page
    assert re.search(r"<td><p><del>old</del> <strong>new</strong>", page) or "<s>old</s>" in page
    assert re.search(r"<details><summary>Hints</summary>.*<li><p>first: <strong>look</strong>.*</details>", page, re.S)
    assert "It costs $5, or" in page and "{role}" in page and "% this line." in page
    assert re.search(r'href="[./]*_downloads/\w+/lesson_01_example\.zip"', page)
    code = (site / "lessons/lesson_01_example/model/parts.py.html").read_text(encoding="utf-8")
    assert '<span class="kn">from</span>' in code and 'href="files.html"' in code
    assert "cell_output" in (site / "lessons/lesson_01_example/lesson.html").read_text(encoding="utf-8")
    assert "Apache License" in (site / "_static/mathjax/LICENSE").read_text(encoding="utf-8")


def test_every_error_is_named_and_nothing_is_built(course, build, tmp_path):
    page = course / "shared/package/README.md"
    page.write_text(
        "# A package\n\n[a](nowhere.py) [b](../../README.md#nothing) [c](#neither) ![d](figures/no.png)\n\n"
        "```{container\n```\n"
    )
    loose = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (course / "shared/package/loose.ipynb").write_text(json.dumps(loose))
    done = build(course)
    assert done.returncode != 0 and "the site has errors" in done.stderr
    for error in ("nowhere.py", "nothing", "neither", "no.png", "loose"):
        assert re.search(f"(WARNING|ERROR).*{error}|{error}.*WARNING", done.stderr), f"{error}:\n{done.stderr}"
    assert not (tmp_path / "site").exists()


def test_the_browser_reports_errors(course, build, browse, tmp_path):
    done = build(course)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "site/shared/package/README.html"
    planted = (
        '<p>Loose $y$.</p><div style="width: 900px">wide</div><img src="missing.png">'
        '<span class="math">\\(\\nomacro x\\)</span><span class="math">unset</span>'
        '<script>console.error("planted")</script><script src="https://example.org/x.js"></script>'
    )
    page.write_text(page.read_text(encoding="utf-8").replace("</article>", f"{planted}</article>"), encoding="utf-8")
    report = browse(tmp_path / "site", "people", "zebra")
    pages = report["pages"]
    result = pages["shared/package/README.html"]
    assert (
        result["dollars"] == ["Loose $y$."] and result["unrendered"] == ["unset"] and len(result["formulaErrors"]) == 1
    )
    assert len(result["overflowing"]) == 1 and result["overflowing"][0].startswith('<div style="width: 900px')
    assert (
        [Path(name).name for name in result["brokenImages"]]
        == ["missing.png"]
        == [Path(name).name for name in result["missingAltTexts"]]
    )
    assert any("planted" in error for error in result["errors"]) and any("404" in error for error in result["errors"])
    assert result["externalRequests"] == ["https://example.org/x.js"]
    good = pages["lessons/lesson_01_example/README.html"]
    assert (
        good["formulas"] == 4 - 1
        and good["unrendered"] == good["formulaErrors"] == good["brokenImages"] == good["externalRequests"] == []
    )
    assert report["searches"] == {"people": ["A package"], "zebra": []} or "A package" in report["searches"]["people"]


def rgb(color: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", color)[:3]]


def test_the_course_in_a_browser(build, browse, tmp_path):
    done = build(ROOT)
    assert done.returncode == 0, done.stderr
    assert dead_links(tmp_path / "site") == []
    report = browse(tmp_path / "site", "Q-Former", "position")
    pages, course = report["pages"], Course.at(ROOT)
    for name, result in pages.items():
        assert result["errors"] == [] and result["externalRequests"] == [], name
        assert result["unrendered"] == result["formulaErrors"] == [], f"{name}: mathematics"
        assert result["dollars"] == [], f"{name}: mathematics that neither GitHub nor the site recognizes"
        assert result["brokenImages"] == [] and result["missingAltTexts"] == [], f"{name}: images"
        assert result["phoneWidth"] == 390 and result["overflowing"] == [], f"{name}: wider than a phone"
        assert result["title"] or name == "search.html", name
        light, dark = rgb(result["background"]), [rgb(color) for color in result["dark"]]
        assert min(light) > 200 and max(dark[0]) < 60 and min(dark[1]) > 150, f"{name}: light and dark"
    for number, folder in course.lessons.items():
        name = (folder / "README.html").relative_to(ROOT).as_posix()
        facts = " ".join(pages[name]["facts"])
        assert f"about {course.entries[number].minutes} minutes" in facts and course.entries[number].kind in facts, name
        assert "Builds on" in facts
        if (folder / "lesson.ipynb").exists():
            assert pages[name.replace("README", "lesson")]["images"] >= 3, "a notebook shows its images"
    assert sum(result["formulas"] for result in pages.values()) > 0
    assert any("Vision Transformers" in title for title in report["searches"]["position"])
    if 3 in course.lessons:
        assert any("Q-Former" in title for title in report["searches"]["Q-Former"])
