"""The example in shared/course/README.md runs and prints what its comment shows, and the map lists every file."""

import re

from shared.course.lesson import ROOT

FOLDER = ROOT / "shared" / "course"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_its_comment_shows(capsys):
    code = re.search(r"```python\n(.*?)```", TEXT, flags=re.S)[1]
    exec(code, {})
    assert f"# {capsys.readouterr().out.strip()}" in code


def test_every_module_is_listed():
    linked = set(re.findall(r"\]\(([\w.]+\.py)\)", TEXT))
    assert linked == {path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py"}
