"""The site is built without a warning, and in a real browser its pages are what they should be.

Needs what `make test-site` installs, and Chromium; without them these tests are skipped and say so.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from shared.course.lesson import ROOT
from shared.course.site.pages import Course

# A build is some seconds of work and a browser's round some more; how long that takes is the machine's affair.
pytestmark = pytest.mark.timeout(0)


class Links(HTMLParser):
    """The anchors of a page, and what it points to."""

    def __init__(self, page: Path):
        super().__init__()
        self.anchors, self.targets = set(), set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        self.targets.add(found.get("href") if tag in ("a", "link") else found.get("src"))


def dead_links(site: Path) -> list[str]:
    """Every link and picture of a built site that leads to no file, or to no such place in it."""
    pages, dead = {page: Links(page) for page in site.rglob("*.html")}, []
    for page, links in pages.items():
        for target in links.targets - {None, ""}:
            where = urlsplit(target)
            if where.scheme or where.netloc:
                continue
            goal = (page.parent / unquote(where.path)).resolve() if where.path else page
            lost = not goal.is_file() or (
                where.fragment and goal in pages and where.fragment not in pages[goal].anchors
            )
            if lost:
                dead.append(f"{page.relative_to(site)} → {target}")
    return dead


def test_markdown_reads_as_on_github(course, build, tmp_path):
    (course / "dist").mkdir()
    (course / "dist/lesson_01_example.zip").write_bytes(b"zip")
    done = build(course)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    assert dead_links(site) == []
    page = (site / "lessons/lesson_01_example/README.html").read_text(encoding="utf-8")
    assert 'href="model/parts.py.html"' in page and 'href="model/files.html"' in page
    assert 'href="../../shared/room/README.html"' in page and 'href="../../shared/bare/files.html"' in page
    assert 'href="../../README.html#how-it-is-laid-out"' in page and 'href="#key-terms"' in page
    assert re.search(r"<td><p><del>old</del> <strong>new</strong>", page) or "<s>old</s>" in page
    assert re.search(r"<details><summary>Hints</summary>.*<li><p>first: <strong>look</strong>.*</details>", page, re.S)
    assert "It costs $5, or" in page and "{role}" in page and "% this line." in page
    assert re.search(r'href="[./]*_downloads/\w+/lesson_01_example\.zip"', page)
    code = (site / "lessons/lesson_01_example/model/parts.py.html").read_text(encoding="utf-8")
    assert '<span class="kn">from</span>' in code and 'href="files.html"' in code
    assert "cell_output" in (site / "lessons/lesson_01_example/lesson.html").read_text(encoding="utf-8")
    assert "Apache License" in (site / "_static/mathjax/LICENSE").read_text(encoding="utf-8")


def test_every_fault_is_named_and_nothing_is_built(course, build, tmp_path):
    page = course / "shared/room/README.md"
    page.write_text(
        "# A room\n\n[a](nowhere.py) [b](../../README.md#nothing) [c](#neither) ![d](figures/no.png)\n\n```{container\n```\n"
    )
    loose = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (course / "shared/room/loose.ipynb").write_text(json.dumps(loose))
    done = build(course)
    assert done.returncode != 0 and "the site has faults" in done.stderr
    for fault in ("nowhere.py", "nothing", "neither", "no.png", "loose"):
        assert re.search(f"(WARNING|ERROR).*{fault}|{fault}.*WARNING", done.stderr), f"{fault}:\n{done.stderr}"
    assert not (tmp_path / "site").exists()


def test_the_browser_notices_what_is_wrong(course, build, browse, tmp_path):
    done = build(course)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "site/shared/room/README.html"
    planted = (
        '<p>Loose $y$.</p><div style="width: 900px">wide</div><img src="missing.png"><span class="math">\\(\\nomacro x\\)</span>'
        '<span class="math">unset</span><script>console.error("planted")</script><script src="https://example.org/x.js"></script>'
    )
    page.write_text(page.read_text(encoding="utf-8").replace("</article>", f"{planted}</article>"), encoding="utf-8")
    found = browse(tmp_path / "site", "people", "zebra")
    pages = found["pages"]
    seen = pages["shared/room/README.html"]
    assert seen["dollars"] == ["Loose $y$."] and seen["unset"] == ["unset"] and len(seen["misread"]) == 1
    assert len(seen["spilled"]) == 1 and seen["spilled"][0].startswith('<div style="width: 900px')
    assert (
        [Path(name).name for name in seen["broken"]] == ["missing.png"] == [Path(name).name for name in seen["unnamed"]]
    )
    assert any("planted" in said for said in seen["errors"]) and any("404" in said for said in seen["errors"])
    assert seen["outside"] == ["https://example.org/x.js"]
    good = pages["lessons/lesson_01_example/README.html"]
    assert good["formulas"] == 4 - 1 and good["unset"] == good["misread"] == good["broken"] == good["outside"] == []
    assert found["searches"] == {"people": ["A room"], "zebra": []} or "A room" in found["searches"]["people"]


def rgb(colour: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


def test_the_course_in_a_browser(build, browse, tmp_path):
    done = build(ROOT)
    assert done.returncode == 0, done.stderr
    assert dead_links(tmp_path / "site") == []
    found = browse(tmp_path / "site", "Q-Former", "position")
    pages, course = found["pages"], Course.at(ROOT)
    for name, seen in pages.items():
        assert seen["errors"] == [] and seen["outside"] == [], name
        assert seen["unset"] == seen["misread"] == [], f"{name}: mathematics"
        assert seen["dollars"] == [], f"{name}: mathematics that neither GitHub nor the site takes for such"
        assert seen["broken"] == [] and seen["unnamed"] == [], f"{name}: pictures"
        assert seen["phone"] == 390 and seen["spilled"] == [], f"{name}: wider than a phone"
        assert seen["title"] or name == "search.html", name
        light, dark = rgb(seen["background"]), [rgb(colour) for colour in seen["dark"]]
        assert min(light) > 200 and max(dark[0]) < 60 and min(dark[1]) > 150, f"{name}: light and dark"
    for number, folder in course.lessons.items():
        name = (folder / "README.html").relative_to(ROOT).as_posix()
        said = " ".join(pages[name]["facts"])
        assert f"about {course.entries[number].minutes} minutes" in said and course.entries[number].kind in said, name
        assert "Builds on" in said
        if (folder / "lesson.ipynb").exists():
            assert pages[name.replace("README", "lesson")]["images"] >= 3, "a notebook shows its pictures"
    assert sum(seen["formulas"] for seen in pages.values()) > 0
    assert any("Vision Transformers" in title for title in found["searches"]["position"])
    if 3 in course.lessons:
        assert any("Q-Former" in title for title in found["searches"]["Q-Former"])
