"""Open every page of a built site in headless Chromium and report what the browser displays.

    .venv-site/bin/python -m shared.course.site.browser FOLDER REPORT.json [--search WORD …] [--screenshots FOLDER]

The tests judge the report (`tests/test_site.py`). Needs requirements/site-browser.txt.
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
from shared.course.site.chromium import chromium_flags, find_chromium
from shared.course.site.serve import server
from shared.errors import CourseError

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
TIMEOUT = 120_000  # milliseconds, long enough for a busy machine

# Inspects a page in the browser, after MathJax has rendered the mathematics.
INSPECT = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (const image of document.images) { image.loading = "eager"; try { await image.decode(); } catch {} }
  const text = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
  const dollars = [];
  while (text.nextNode()) {
    const node = text.currentNode;
    const isCode = node.parentElement.closest("code, pre, script, mjx-container");
    if (node.data.includes("$") && !isCode) dollars.push(node.data);
  }
  const scrolls = node => node && node.tagName !== "ARTICLE" &&
    (["auto", "scroll"].includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
  const overflows = node => node.getBoundingClientRect().right > innerWidth + 1 && !scrolls(node);
  const errorMarks = '[data-mml-node="merror"], [data-mjx-error], [fill="red"], [stroke="red"]';
  return {
    title: document.querySelector("h1")?.innerText ?? "",
    formulas: document.querySelectorAll("article .math").length,
    unrendered: [...document.querySelectorAll("article .math")]
      .filter(math => !math.querySelector("svg")).map(math => math.innerText),
    formulaErrors: [...document.querySelectorAll("mjx-container")]
      .filter(formula => formula.querySelector(errorMarks))
      .map(formula => formula.innerText),
    dollars: dollars,
    images: document.images.length,
    brokenImages: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    missingAltTexts: [...document.images]
      .filter(image => !image.alt && !image.closest(".cell_output")).map(image => image.src),
    facts: [...document.querySelectorAll("article .facts li")].map(item => item.innerText),
    background: getComputedStyle(document.body).backgroundColor,
    textColor: getComputedStyle(document.body).color,
    width: document.documentElement.scrollWidth,
    overflowing: [...document.querySelectorAll("article *")].filter(overflows).map(node => node.outerHTML.slice(0, 80)),
  };
}"""


class RecordedPage:
    """A page of the browser whose errors and requests to other hosts are recorded."""

    def __init__(self, page: Page, base_url: str):
        self.page, self.base_url = page, base_url
        self.errors: list[str] = []
        self.external_requests: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self.on_request)
        page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}: {request.failure}"))
        page.on(
            "response",
            lambda reply: self.errors.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None,
        )

    def on_request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and not request.url.startswith(self.base_url):
            self.external_requests.append(request.url)

    def inspect(self, name: str) -> dict[str, Any]:
        """Open a page and report what it displays on a desktop, in dark mode and on a phone."""
        self.errors, self.external_requests = [], []
        self.page.set_viewport_size(DESKTOP)
        self.page.emulate_media(color_scheme="light")
        self.page.goto(self.base_url + quote(name))
        result = self.page.evaluate(INSPECT)
        self.page.emulate_media(color_scheme="dark")
        dark = self.page.evaluate(INSPECT)
        self.page.set_viewport_size(PHONE)
        phone = self.page.evaluate(INSPECT)
        result["dark"] = [dark["background"], dark["textColor"]]
        result |= {"phoneWidth": phone["width"], "overflowing": phone["overflowing"]}
        return result | {"errors": self.errors, "externalRequests": self.external_requests}

    def search(self, word: str) -> list[str]:
        """Return the titles of the pages that the site's search lists."""
        self.page.set_viewport_size(DESKTOP)
        self.page.goto(self.base_url)
        self.page.fill(".sidebar-search", word)
        self.page.press(".sidebar-search", "Enter")
        self.page.wait_for_function(
            "/finished|did not match/.test(document.querySelector('#search-results')?.innerText)"
        )
        return self.page.locator("#search-results li > a").all_inner_texts()


def pages_of(folder: Path) -> list[str]:
    """Return the names of all written pages, and a sample of the pages made from source files and folders."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    names = [name for name in names if not name.startswith("_")]
    code = [name for name in names if name.endswith((".py.html", ".toml.html"))]
    listings = [name for name in names if name.endswith("/files.html")]
    written = [name for name in names if name not in {*code, *listings}]
    return written + code[:: max(1, len(code) // 4)] + listings[:: max(1, len(listings) // 4)]


def take_screenshots(page: RecordedPage, folder: Path, names: list[str]) -> None:
    """Save screenshots of pages in light mode, in dark mode and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for variant, size, scheme in (
            ("light", DESKTOP, "light"),
            ("dark", DESKTOP, "dark"),
            ("phone", PHONE, "light"),
        ):
            page.page.set_viewport_size(size)
            page.page.emulate_media(color_scheme=scheme)
            page.page.goto(page.base_url + quote(name))
            page.page.evaluate(INSPECT)
            page.page.screenshot(path=folder / f"{name.removesuffix('.html').replace('/', '-')}-{variant}.png")


def inspect_site(browser: Browser, folder: Path, words: list[str], screenshots: Path | None) -> dict[str, Any]:
    """Serve the folder on this machine, inspect its pages and search for words."""
    with server(folder, 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        page = RecordedPage(browser.new_page(), f"http://127.0.0.1:{serving.server_port}/")
        names = pages_of(folder)
        report: dict[str, Any] = {
            "pages": {name: page.inspect(name) for name in names},
            "searches": {word: page.search(word) for word in words},
        }
        if screenshots:
            take_screenshots(page, screenshots, [name for name in names if "lesson_" in name or "/" not in name])
        serving.shutdown()
    return report


@command_line()
def main() -> None:
    parser = argparse.ArgumentParser(description="Open every page of a built site and report what is displayed.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--search", nargs="*", default=[])
    parser.add_argument("--screenshots", type=Path)
    options, path = parser.parse_args(), find_chromium()
    if path is None:
        raise CourseError("this machine has no Chromium or Chrome; install one, or name it: CHROMIUM=/path/to/it")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = {**os.environ, "HOME": home}
        browser = playwright.chromium.launch(executable_path=path, args=chromium_flags(), env=environment)
        report = inspect_site(browser, options.folder, options.search, options.screenshots)
        browser.close()
    options.report.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
