"""The README's example runs, and its tables are the measurements of the shipped judge."""

import json
import re

import pytest
import torch

from shared.course.checkpoint import CHECKPOINTS_FOLDER, PROVENANCE, checkpoint_hash
from shared.course.readme import replace_generated
from shared.judge.measure import CHANGES, CORRUPTIONS, PAGE, RECORD, add_noise, blur, measure, recolor_one, tables
from shared.judge.pretrained import NAME
from shared.judge.training import JudgeRecipe, training_scene

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def measured(judge):
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_example_runs(judge, capsys):
    exec(re.search(r"```python\n(.*?)```", TEXT, flags=re.S)[1], {})
    lines = capsys.readouterr().out.splitlines()
    scores = dict(re.findall(r"^(\w+) +[\d.]+% \(real renders ([\d.]+)%\)", "\n".join(lines), flags=re.M))
    assert set(scores) == {"place", "shape", "color", "size", "texture", "object", "count", "scene", "caption"}
    assert float(scores["color"]) >= 99
    assert lines[-1].startswith("Score(generated=")


def test_the_tables_are_the_measurements_of_the_shipped_judge(measured):
    assert measured["checkpoint"] == checkpoint_hash(CHECKPOINTS_FOLDER / NAME), "run python -m shared.judge.measure"
    assert replace_generated(TEXT, tables(measured), "README.md") == TEXT, "run python -m shared.judge.measure"


def test_the_measurements_agree_with_the_provenance(measured):
    provenance = json.loads((CHECKPOINTS_FOLDER / NAME / PROVENANCE).read_text())["measured"]
    for size in (32, 64):
        for combinations in ("seen", "unseen"):
            for name, value in measured["accuracy"][f"{size} × {size}, {combinations}"].items():
                assert value == pytest.approx(provenance[f"{name}_{size}_{combinations}"], abs=0.002), (size, name)


def test_a_short_measurement_has_every_row(judge):
    measured = measure(judge, count=20, sample_sizes=(10, 20))
    assert list(measured["corrupted"]) == list(CORRUPTIONS)
    assert list(measured["distance"]) == [*CORRUPTIONS, *CHANGES]
    assert list(measured["bias"]) == ["10", "20"] and measured["bias"]["10"] > measured["bias"]["20"]
    assert measured["distance"]["none"] == pytest.approx(measured["bias"]["20"])


def test_the_page_states_the_augmentation_of_the_recipe():
    recipe = JudgeRecipe()
    for value in (f"{recipe.blur:g} of a pixel's value", f"± {recipe.color_gain:.0%}", f"± {recipe.color_shift:.0%}"):
        assert value.replace("%", " %") in TEXT
    assert f"deviation of {recipe.noise:.0%}".replace("%", " %") in TEXT


def test_changes_and_corruptions_change_what_they_state():
    scene = next(scene for number in range(9) if len((scene := training_scene(0, number)).objects) > 1)
    changed = recolor_one(scene)
    assert changed.objects[0].color != scene.objects[0].color
    assert changed.objects[0]._replace(color=scene.objects[0].color) == scene.objects[0]
    assert changed.objects[1:] == scene.objects[1:]
    point = torch.zeros(1, 3, 32, 32)
    point[0, :, 16, 16] = 1
    blurred = blur(point, 0.7)
    assert blurred.sum().item() == pytest.approx(3, rel=1e-3)
    offsets = torch.arange(32) - 16.0
    assert (blurred[0, 0].sum(0) * offsets**2).sum().item() == pytest.approx(0.7**2, rel=0.05)
    gray = torch.full((1, 3, 32, 32), 0.5)
    assert (add_noise(gray, 0.1) - gray).std().item() == pytest.approx(0.1, rel=0.05)
