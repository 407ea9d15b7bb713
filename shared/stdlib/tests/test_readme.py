"""Test that the README's example runs, and that its table lists every module."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1]
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_example_runs(capsys):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    exec(example, {})
    assert "█" in capsys.readouterr().out


def test_every_module_is_listed():
    modules = {path.name for path in FOLDER.glob("[a-z]*.py")}
    assert set(re.findall(r"\[`(\w+\.py)`\]", PAGE)) == modules
