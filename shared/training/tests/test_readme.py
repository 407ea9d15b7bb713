"""The README matches the code: its options and defaults, its example, the files that it lists."""

import re
from dataclasses import MISSING, fields

from shared.course.job_spec import ROOT
from shared.training import TrainingConfig
from shared.training.checkpoint import FILE_NAME, read_checkpoint
from shared.training.tests.small_run import config, run
from shared.training.watchdog import LAG, PATIENCE

PAGE = (ROOT / "shared" / "training" / "README.md").read_text(encoding="utf-8")


def test_the_table_lists_every_option_with_its_default():
    table = PAGE.split("| `TrainingConfig` |")[1].split("\n\n")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", table, flags=re.M))
    defaults = {each.name: "–" if each.default is MISSING else f"`{each.default!r}`" for each in fields(TrainingConfig)}
    assert listed == defaults


def test_the_example_runs_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, reading = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    namespace: dict = {}
    exec(example, namespace)
    first = namespace["result"]
    assert first.history[-1]["evaluation/accuracy"] > 0.97
    exec(example, namespace)
    assert namespace["result"].history == first.history  # nothing was trained again
    exec(reading, namespace)
    assert namespace["losses"][-1] < namespace["losses"][0]
    listing = PAGE.split("    runs/circle/\n")[1].split("\n\n")[0]
    listed = {
        line.split()[0].rstrip("/") for line in listing.splitlines() if line.startswith("      ") and line[6] != " "
    }
    assert {path.name for path in (tmp_path / "runs" / "circle").iterdir()} == listed


def test_the_page_names_the_settings_that_may_change(tmp_path):
    run(tmp_path, settings=config(steps=3))
    saved = read_checkpoint(tmp_path / FILE_NAME)[1]["settings"].keys()
    sentence = re.search(r"When a run continues, (.*?) may differ", PAGE)[1]
    assert set(re.findall(r"`(\w+)`", sentence)) == {each.name for each in fields(TrainingConfig)} - saved


def test_numbers_match_the_code():
    assert f"for {PATIENCE} steps the loss has been more than `divergence_factor` times" in PAGE
    assert f"the highest until {LAG} steps before" in PAGE
