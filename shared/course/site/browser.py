"""Look at every page of a built site in a real Chromium without a window, and write down what is there to be seen.

    .venv-site/bin/python -m shared.course.site.browser FOLDER REPORT.json [--search WORD …] [--pictures FOLDER]

Judging is left to the tests (`tests/test_site.py`); this only reports. Needs requirements/site-browser.txt.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from shared.cli import command_line
from shared.course.site.chromium import chromium, flags
from shared.course.site.serve import server
from shared.errors import CourseError

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PATIENCE = 120_000  # milliseconds; a busy machine is no fault of the page

# Everything that a page shows: counted in the browser, after mathematics has been set.
SEEN = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const image of document.images) { image.loading = "eager"; try { await image.decode(); } catch {} }
  const text = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  const dollars = [];
  while (text.nextNode()) {
    const node = text.currentNode;
    if (node.data.includes("$") && !node.parentElement.closest("code, pre, script, mjx-container")) dollars.push(node.data);
  }
  const scrolls = node => node && node.tagName !== "ARTICLE" &&
    (["auto", "scroll"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  const spills = node => node.getBoundingClientRect().right > innerWidth + 1 && !scrolls(node);
  return {
    title: document.querySelector("h1")?.innerText ?? "",
    formulas: document.querySelectorAll("article .math").length,
    unset: [...document.querySelectorAll("article .math")].filter(math => !math.querySelector("svg")).map(math => math.innerText),
    misread: [...document.querySelectorAll("mjx-container")]
      .filter(found => found.querySelector('[data-mml-node="merror"], [data-mjx-error], [fill="red"], [stroke="red"]'))
      .map(found => found.innerText),
    dollars: dollars,
    images: document.images.length,
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    unnamed: [...document.images].filter(image => !image.alt && !image.closest(".cell_output")).map(image => image.src),
    facts: [...document.querySelectorAll("article .facts li")].map(item => item.innerText),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    width: document.documentElement.scrollWidth,
    spilled: [...document.querySelectorAll("article *")].filter(spills).map(node => node.outerHTML.slice(0, 80)),
  };
}"""


class Watched:
    """A page of the browser whose errors and requests are written down."""

    def __init__(self, page: Page, home: str):
        self.page, self.home = page, home
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self.on_request)
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        page.on("response", lambda got: self.errors.append(f"{got.status}: {got.url}") if got.status >= 400 else None)

    def on_request(self, request: Any) -> None:
        where = urlsplit(request.url)
        if where.scheme not in ("data", "blob") and not request.url.startswith(self.home):
            self.outside.append(request.url)

    def look(self, name: str) -> dict[str, Any]:
        """Open a page and report what it shows at a desk, in the dark and on a phone."""
        self.errors, self.outside = [], []
        self.page.set_viewport_size(DESK)
        self.page.emulate_media(color_scheme="light")
        self.page.goto(self.home + quote(name))
        seen = self.page.evaluate(SEEN)
        self.page.emulate_media(color_scheme="dark")
        dark = self.page.evaluate(SEEN)
        self.page.set_viewport_size(PHONE)
        phone = self.page.evaluate(SEEN)
        seen |= {"dark": [dark["background"], dark["ink"]], "phone": phone["width"], "spilled": phone["spilled"]}
        return seen | {"errors": self.errors, "outside": self.outside}

    def search(self, word: str) -> list[str]:
        """The titles of what the site's own search finds."""
        self.page.set_viewport_size(DESK)
        self.page.goto(self.home)
        self.page.fill(".sidebar-search", word)
        self.page.press(".sidebar-search", "Enter")
        self.page.wait_for_function(
            "/finished|did not match/.test(document.querySelector('#search-results')?.innerText)"
        )
        return self.page.locator("#search-results li > a").all_inner_texts()


def pages_of(folder: Path) -> list[str]:
    """Every page that somebody wrote, and some of those made of code."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    names = [name for name in names if not name.startswith("_")]
    code = [name for name in names if name.endswith((".py.html", ".toml.html"))]
    listings = [name for name in names if name.endswith("/files.html")]
    written = [name for name in names if name not in {*code, *listings}]
    return written + code[:: max(1, len(code) // 4)] + listings[:: max(1, len(listings) // 4)]


def pictures(watched: Watched, folder: Path, names: list[str]) -> None:
    """Leave pictures of pages, light, dark and on a phone, for people to look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for look, size, scheme in (("light", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")):
            watched.page.set_viewport_size(size)
            watched.page.emulate_media(color_scheme=scheme)
            watched.page.goto(watched.home + quote(name))
            watched.page.evaluate(SEEN)
            watched.page.screenshot(path=folder / f"{name.removesuffix('.html').replace('/', '-')}-{look}.png")


def report(browser: Browser, folder: Path, words: list[str], pictured: Path | None) -> dict[str, Any]:
    """Serve the folder on this machine and look at all of it."""
    with server(folder, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        watched = Watched(browser.new_page(), f"http://127.0.0.1:{serving.server_port}/")
        names = pages_of(folder)
        found = {"pages": {name: watched.look(name) for name in names}}
        found["searches"] = {word: watched.search(word) for word in words}
        if pictured:
            pictures(watched, pictured, [name for name in names if "lesson_" in name or "/" not in name])
        serving.shutdown()
    return found


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Look at every page of a built site.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--search", nargs="*", default=[])
    parser.add_argument("--pictures", type=Path)
    asked, path = parser.parse_args(), chromium()
    if path is None:
        raise CourseError(
            "there is no Chromium or Chrome on this machine; install one, or name it: CHROMIUM=/path/to/it"
        )
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags(), env={**os.environ, "HOME": home})
        found = report(browser, asked.folder, asked.search, asked.pictures)
        browser.close()
    asked.report.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
