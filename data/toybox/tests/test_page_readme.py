"""The README of pages: its example, figure and table of question types are right.

`python -m data.toybox.tests.test_page_readme` draws the figure again.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data.toybox.page.content import CHART, MENU, RECEIPT
from data.toybox.page.image import render_page
from data.toybox.page.pages import page_at
from data.toybox.page.questions import TEMPLATES, TYPES_OF, answers

FOLDER = Path(__file__).parents[1]
TEXT = (FOLDER / "page" / "README.md").read_text(encoding="utf-8")
FIGURE = FOLDER / "figures" / "pages.png"
NOISY = replace(RECEIPT, contrast=(80, 80), grain=64)
PAGES = [page_at("train", 0, number, setting) for number, setting in ((0, RECEIPT), (5, MENU), (0, CHART), (0, NOISY))]
SCALE, GAP = 2, 12


def figure() -> np.ndarray:
    """Return the pages side by side, twice as large: uint8 [height, width, 3]."""
    images = [render_page(page).repeat(SCALE, 0).repeat(SCALE, 1) for page in PAGES]
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] for image in images) + GAP * (len(images) + 1)
    canvas = np.full((height + 2 * GAP, width, 3), 255, np.uint8)
    left = GAP
    for image in images:
        top = GAP + (height - image.shape[0]) // 2
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        left += image.shape[1] + GAP
    return canvas


def test_the_figure_shows_the_named_pages():
    assert (np.asarray(Image.open(FIGURE).convert("RGB")) == figure()).all()
    assert PAGES[0].entries == PAGES[3].entries
    sizes = ", ".join(f"{page.width} × {page.height}" for page in PAGES[:3])
    assert f"the sizes {sizes} pixels" in TEXT


def test_the_example_prints_what_its_comments_show(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    namespace: dict = {}
    exec(code, namespace)
    printed = capsys.readouterr().out.splitlines()
    comments = re.findall(r"^print\(.*?\)  # (.+)$", code, flags=re.M)
    assert printed == comments
    page = namespace["page"]
    assert namespace["image"].shape == (page.height, page.width, 3)


def test_the_table_lists_every_question_type():
    settings = {"receipt": RECEIPT, "menu": MENU, "chart": CHART}
    for kind, types in TYPES_OF.items():
        for question_type in types:
            (row,) = re.findall(rf"^\| {question_type} \| (.+) \|$", TEXT, flags=re.M)
            kinds, example, count = (cell.strip() for cell in row.split("|"))
            assert kind in kinds and int(count) == len(answers(settings[kind], question_type)), question_type
            assert re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(TEMPLATES[question_type])), example), question_type


if __name__ == "__main__":
    Image.fromarray(figure()).save(FIGURE, optimize=True)
