"""Use the page at `/` in headless Chromium as people do, and write what the browser displays to a JSON file.

    python -m shared.serving.tests.page_in_browser REPORT.json SCENARIO URL FOLDER

`test_browser.py` runs this with the site's interpreter, which has Playwright, and judges the report. FOLDER holds the
image files that are uploaded.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from shared.course.site.browser import DESKTOP, TIMEOUT, RecordedPage
from shared.course.site.chromium import chromium_flags, find_chromium

PHONE = {"width": 360, "height": 740}
expect.set_options(timeout=TIMEOUT)

# The lowest contrast between a text and its background, and the smallest target of a finger.
READABILITY = """() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb(color).slice(0, 3).map(value => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (rgb(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const contrasts = [], small = [], unnamed = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const shown = node.checkVisibility() && !node.closest(":disabled, script, noscript, .skip");
    if (!shown || !texts.currentNode.data.trim()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(background(node))].sort((x, y) => y - x);
    contrasts.push([(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 80)]);
  }
  for (const control of document.querySelectorAll("button, label.button, .tokens label, input[type=text]")) {
    const { height } = control.getBoundingClientRect();
    if (control.checkVisibility() && height < 32) small.push(control.outerHTML.slice(0, 80));
  }
  for (const control of document.querySelectorAll("input, button, a, img:not([alt=''])")) {
    const label = control.labels?.[0]?.innerText || control.innerText;
    const name = label || control.alt || control.querySelector("img")?.alt;
    if (!name?.trim()) unnamed.push(control.outerHTML.slice(0, 80));
  }
  contrasts.sort((a, b) => a[0] - b[0]);
  return { contrast: contrasts[0], small, unnamed, width: document.documentElement.scrollWidth };
}"""
# The opacity of the map at the center of each cell of a grid over the canvas, row by row.
OPACITY = """([rows, columns]) => {
  const canvas = document.getElementById("heat");
  const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const cells = count => [...Array(count).keys()].map(n => (n + 0.5) / count);
  const at = (y, x) => context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data[3];
  return cells(rows).map(y => cells(columns).map(x => at(y, x)));
}"""


def answers(page: Page) -> list[str]:
    return page.locator(".answer").all_inner_texts()


def ask(page: Page, question: str, count: int = 1) -> None:
    """Ask, and wait until `count` answers are complete."""
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer:not(.running)")).to_have_count(count)


def error_after(page: Page, act: Callable[[], object]) -> str:
    """Return the error message that an action leads to."""
    act()
    expect(page.get_by_role("alert")).to_be_visible()
    return page.locator("#error-text").inner_text()


def image_scenario(page: Page, recorded: RecordedPage, folder: Path) -> dict[str, Any]:
    """Take a sample, ask, and look where the model attends; then upload images, good ones and bad ones."""
    report: dict[str, Any] = {"scope": page.locator("#scope").inner_text()}
    ready = page.get_by_role("button", name="Sample 1")
    report["without an image"] = error_after(page, lambda: ask(page, "what?", 0))
    ready.click()
    page.get_by_role("button", name="what is it?").click()
    expect(page.get_by_role("radio")).to_have_count(4)
    report["answer"] = answers(page)
    report["mean"] = page.evaluate(OPACITY, [2, 2])
    report["radios"] = [page.get_by_role("radio").nth(n).evaluate("r => r.labels[0].innerText") for n in range(4)]
    # The keyboard alone: one tab stop for all tokens, arrows from token to token.
    page.get_by_role("radio", checked=True).focus()
    page.keyboard.press("ArrowRight")
    report["first token"] = [page.evaluate(OPACITY, [2, 2]), page.locator("#attention-text").inner_text()]
    report["legend"] = page.locator("#legend-high").inner_text()
    page.keyboard.press("ArrowRight")
    report["second token"] = page.evaluate(OPACITY, [2, 2])
    page.get_by_label("Show where the model attends").click()
    report["hidden"] = page.evaluate("document.getElementById('heat').width")
    page.get_by_label("Show where the model attends").click()
    ask(page, "<img src=x onerror=document.title=1>", 2)
    report["markup"] = [page.title(), answers(page)[1], page.locator(".log img").count()]
    for scheme, size in (("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        report[f"{scheme} {size['width']}"] = page.evaluate(READABILITY)
    page.set_viewport_size(DESKTOP)
    choose = page.get_by_label("Choose an")
    choose.set_input_files(folder / "wide.png")
    expect(page.get_by_role("img", name="Your image: wide.png")).to_be_visible()
    report["log after another image"] = page.locator(".turn").count()
    ask(page, "wide")
    expect(page.get_by_role("radio")).to_have_count(2)
    report["cropped"] = page.evaluate(OPACITY, [2, 4])
    for name in ("large.png", "many-pixels.png", "text.txt", "broken.png"):
        report[name] = error_after(page, lambda name=name: choose.set_input_files(folder / name))
        report[f"after {name}"] = page.get_by_role("img", name="Your image: wide.png").count()
    page.evaluate(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
          document.getElementById("drop").dispatchEvent(drop);
        }""",
        list((folder / "wide.png").read_bytes()),
    )
    expect(page.get_by_role("img", name="Your image: dropped.png")).to_be_visible()
    return report


def text_scenario(page: Page, recorded: RecordedPage, folder: Path) -> dict[str, Any]:
    """Talk to a model without images, which receives the earlier turns."""
    page.get_by_label("Your question").press_sequentially("one")
    page.keyboard.press("Enter")
    expect(page.locator(".answer:not(.running)")).to_have_count(1)
    ask(page, "two", 2)
    page.set_viewport_size(PHONE)
    report = {
        "image panel": page.locator("#image-panel").is_visible(),
        "radios": page.get_by_role("radio").count(),
        "scope": page.locator("#scope").is_visible(),
        "answers": answers(page),
        "phone": page.evaluate(READABILITY),
        "context": error_after(page, lambda: ask(page, "word " * 390, 2)),
    }
    page.get_by_role("button", name="New conversation").click()
    recorded.errors = []  # the browser logs the refused request
    return report | {"new": page.locator(".turn").count()}


def trouble_scenario(page: Page, recorded: RecordedPage, folder: Path) -> dict[str, Any]:
    """Ask while the service is busy, without a connection, and for an answer that fails after it began."""
    report: dict[str, Any] = {}
    page.get_by_label("Your question").fill("endless")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer")).to_contain_text("more more")  # it streams: the answer never ends
    second = page.context.new_page()
    second.goto(page.url)
    second.get_by_label("Your question").wait_for()
    report["busy"] = error_after(second, lambda: ask(second, "hello", 0))
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".note")).to_have_text("This answer is not complete.")
    report["stopped"] = page.get_by_role("alert").is_visible()
    while not second.locator(".answer:not(.running)").count():  # until the service has noticed the first one's leaving
        second.get_by_role("button", name="Try again").click()
        expect(
            second.get_by_role("button", name="Try again").or_(second.locator(".tokens, .answer")).first
        ).to_be_visible()
        expect(second.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    report["after busy"] = answers(second)
    page.context.set_offline(True)
    report["offline"] = error_after(second, lambda: ask(second, "again", 1))
    page.context.set_offline(False)
    second.get_by_role("button", name="Try again").click()
    expect(second.locator(".answer:not(.running)")).to_have_count(2)
    report["online again"] = answers(second)
    report["failed"] = error_after(second, lambda: ask(second, "choke", 3))
    report["failed note"] = second.locator(".note").all_inner_texts()
    recorded.errors = []  # the browser logs failed requests
    return report


def key_scenario(page: Page, recorded: RecordedPage, folder: Path) -> dict[str, Any]:
    """Open the page of a service behind a key, enter a wrong one, then the right one, and ask."""
    report: dict[str, Any] = {"error": error_after(page, lambda: None)}
    for key in ("wrong", "right"):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use key").click()
        expect(page.locator("#question:enabled, #error:not([hidden])")).to_have_count(1)
        report[key] = page.get_by_role("alert").is_visible()
    recorded.errors = []  # the browser logs the refused requests
    ask(page, "hello")
    return report | {"answers": answers(page), "key": page.get_by_label("API key").is_visible()}


def starting_scenario(page: Page, recorded: RecordedPage, folder: Path) -> dict[str, Any]:
    """Open the page while the model loads; it is ready without a reload."""
    expect(page.get_by_label("Your question")).to_be_enabled()
    recorded.errors = []
    return {"alert": page.get_by_role("alert").is_visible(), "name": page.locator("#model-name").inner_text()}


SCENARIOS: dict[str, Callable[[Page, RecordedPage, Path], dict[str, Any]]] = {
    "image": image_scenario,
    "text": text_scenario,
    "trouble": trouble_scenario,
    "key": key_scenario,
    "starting": starting_scenario,
}


def play(browser: Browser, scenario: str, url: str, folder: Path) -> dict[str, Any]:
    page = browser.new_context(viewport=DESKTOP).new_page()
    recorded = RecordedPage(page, url)
    page.goto(url)
    report = SCENARIOS[scenario](page, recorded, folder)
    return report | {"errors": recorded.errors, "external": recorded.external_requests}


def main() -> None:
    file, scenario, url, folder = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = {**os.environ, "HOME": home}
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=chromium_flags(), env=environment, timeout=TIMEOUT
        )
        Path(file).write_text(json.dumps(play(browser, scenario, url, Path(folder))), encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
