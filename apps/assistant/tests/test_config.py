"""Configurations are read and written, and every error names its location and what was expected."""

import json

import pytest

from apps.assistant.config import CONFIGURATIONS, load, save
from shared.errors import CourseError

SHIPPED = ("debug", "small_scale", "full_scale")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_are_read_and_written(name, tmp_path):
    file = CONFIGURATIONS / f"{name}.json"
    configuration = load(file)
    save(configuration, tmp_path / "again.json")
    assert load(tmp_path / "again.json") == configuration
    # The written file has everything of the shipped one, and the defaults.
    shipped, again = json.loads(file.read_text()), json.loads((tmp_path / "again.json").read_text())
    assert {name: again[name] for name in shipped if name != "stages"} == {
        n: v for n, v in shipped.items() if n != "stages"
    }
    for before, after in zip(shipped["stages"], again["stages"], strict=True):
        assert before.items() <= after.items()


def test_each_configuration_fits_its_purpose():
    debug, small, full = (load(CONFIGURATIONS / f"{name}.json") for name in SHIPPED)
    assert all(file.startswith("toy:") for stage in debug.stages for file in stage.data)
    assert small.model.weights == "int8" and small.model.adapters is not None
    assert all(stage.accumulate > 1 for stage in small.stages)
    # 2.1 MB of logits, loss and gradient per token (README.md) and 2 GB of weights have to fit 16 GB.
    assert all(stage.batch_size * small.model.context * 2.1e6 + 2e9 < 15e9 for stage in small.stages)
    assert full.model.adapters is None and full.model.weights == "float32"
    for one in (small, full):
        assert one.precision == "bfloat16" and one.recompute
        assert [stage.trainable for stage in one.stages] == [("projector",), ("projector", "language")]


def changed(change):
    content = json.loads((CONFIGURATIONS / "small_scale.json").read_text())
    change(content)
    return content


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (put("modle", 1), ["modle: no such key", "expected one of model, stages"]),
        (put("stages", 1, "step", 5), [r"stages\[1\].step: no such key", "expected one of name, trainable"]),
        (put("model", "adapters", "rnak", 5), ["model.adapters.rnak: no such key", "targets, rank, alpha"]),
        (put("seed", "0"), ['seed: "0"; expected a whole number']),
        (put("seed", 0.5), ["seed: 0.5; expected a whole number"]),
        (put("seed", True), ["seed: true; expected a whole number"]),
        (put("skip_bad", 1), ["skip_bad: 1; expected true or false"]),
        (put("model", "vision", None), ["model.vision: null; expected a text"]),
        (put("model", "connector", "pooled"), ['model.connector: "pooled"; expected one of "patches", "embedding"']),
        (put("stages", 0, "learning_rate", "fast"), [r'stages\[0\].learning_rate: "fast"; expected a number']),
        (put("stages", 0, "learning_rate", float("nan")), [r"stages\[0\].learning_rate: NaN"]),
        (put("stages", 0, "trainable", "projector"), [r"stages\[0\].trainable.*expected a list of one of"]),
        (put("stages", 0, "trainable", ["encoder"]), [r'stages\[0\].trainable\[0\]: "encoder"']),
        (put("stages", {}), ["stages: .*expected a list of an object with name"]),
        (put("stages", 0, "steps", 0), [r"stages\[0\]: steps is 0; it must be at least 1"]),
        (put("stages", 0, "batch_size", 0), [r"stages\[0\]: batch_size"]),
        (put("stages", 0, "name", "../x"), [r"stages\[0\]: name is '../x'"]),
        (put("stages", 0, "name", "model"), [r"stages\[0\]: name is 'model'.*not model or adapters"]),
        (put("stages", 0, "name", "x" * 300), [r"stages\[0\]: name is 'xxx.*at most 100"]),
        (put("stages", 0, "weight_decay", -1.0), [r"stages\[0\]: weight_decay is -1.0"]),
        (put("stages", 0, "learning_rate", 10**400), [r"stages\[0\].learning_rate: 1000.*expected a number"]),
        (put("seed", -1), ["seed is -1; it must be between 0 and"]),
        (put("seed", 10**23), ["seed is 1000"]),
        (put("tracker", "neptune"), ['tracker: "neptune"; expected one of "wandb"']),
        (put("model", "caption_prompt", "\ud800"), [r'model.caption_prompt: "\\ud800"; expected a text']),
        (put("stages", 1, "name", "alignment"), ["unique names"]),
        (put("model", "adapters", None), ["model: weights stored as int8 cannot be trained"]),
        (put("model", "adapters", "rank", 0), ["model.adapters: rank is 0"]),
        (put("stages", 0, "data", ["toy:captions"]), ["toy_examples is 0"]),
        (lambda content: content.pop("model"), ["model: missing; expected an object with vision, language"]),
        (lambda content: content["stages"][0].pop("steps"), [r"stages\[0\].steps: missing; expected a whole number"]),
    ],
)
def test_errors_name_the_location_and_what_was_expected(change, messages, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(changed(change)))
    with pytest.raises(CourseError) as error:
        load(file)
    for part in messages:
        assert error.match(part)
    assert error.match("mine.json")


def test_all_errors_are_reported_at_once(tmp_path):
    content = changed(put("seed", "x"))
    content["stages"][1]["steps"], content["model"]["more"] = None, 1
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(CourseError) as error:
        load(tmp_path / "mine.json")
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ('{"model": ' + "[" * 100_000, "is no JSON .*nested too deeply"),
        ("[]", "the file: .*expected an object with model, stages"),
        ('{"seed": 1, "seed": 2}', "seed: given twice"),
    ],
)
def test_other_files_are_refused(text, message, tmp_path):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(CourseError, match=message):
        load(tmp_path / "mine.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CourseError, match=r"none.json does not exist.*configurations"):
        load(tmp_path / "none.json")
