"""The README's example runs and its table is right."""

import re
from pathlib import Path

import pytest

from shared.evaluation import vqa_accuracy

PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys):
    exec(re.search(r"```python\n(.*?)```", PAGE, flags=re.S)[1], {})
    captions, answers = map(eval, capsys.readouterr().out.splitlines())
    assert 0 < captions["BLEU-1"] <= 1 and captions["CIDEr"] > 0
    assert answers == pytest.approx({"accuracy": 0.95, "accuracy/number": 1.0, "accuracy/other": 0.9})


def test_the_table_is_right():
    people, scores = (
        re.findall(r"\d(?:\.\d)?", line) for line in re.findall(r"^\| (?:people|score) .*$", PAGE, flags=re.M)
    )
    for count, score in zip(people, scores, strict=True):
        answers = ["red"] * int(count) + [f"x{n}" for n in range(10 - int(count))]
        assert vqa_accuracy("red", answers) == pytest.approx(float(score))
