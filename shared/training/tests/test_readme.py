"""The page on training says what the code does: its options are the code's, its example runs, its files are there."""

import re
from dataclasses import MISSING, fields

from shared.course.job_spec import ROOT
from shared.course.tests.job_functions import train_small
from shared.training import TrainingConfig
from shared.training.checkpoint import FILE_NAME, read_checkpoint
from shared.training.explosion import LAG, PATIENCE

PAGE = (ROOT / "shared" / "training" / "README.md").read_text(encoding="utf-8")


def test_every_option_stands_in_the_table_with_its_default():
    table = PAGE.split("| `TrainingConfig` |")[1].split("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, flags=re.M))
    defaults = {each.name: "–" if each.default is MISSING else f"`{each.default!r}`" for each in fields(TrainingConfig)}
    assert told == defaults


def test_the_example_runs_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, reading = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    space: dict = {}
    exec(example, space)
    first = space["result"]
    assert first.history[-1]["evaluation/accuracy"] > 0.97
    exec(example, space)
    assert space["result"].history == first.history  # nothing was trained again
    exec(reading, space)
    assert space["losses"][-1] < space["losses"][0]
    left = PAGE.split("    runs/circle/\n")[1].split("\n\n")[0]
    told = {line.split()[0].rstrip("/") for line in left.splitlines() if line.startswith("      ") and line[6] != " "}
    assert {path.name for path in (tmp_path / "runs" / "circle").iterdir()} == told


def test_the_settings_that_may_change_are_those_that_are_named(tmp_path):
    train_small(steps=2, pause=0.0, folder=tmp_path, resume=False)
    kept = read_checkpoint(tmp_path / FILE_NAME)[1]["settings"].keys()
    sentence = re.search(r"When a run goes on, (.*?) may be others", PAGE)[1]
    assert set(re.findall(r"`(\w+)`", sentence)) == {each.name for each in fields(TrainingConfig)} - kept


def test_numbers_are_the_codes():
    assert f"for {PATIENCE} steps the loss has been more than `explosion_factor` times" in PAGE
    assert f"the highest until {LAG} steps before" in PAGE
