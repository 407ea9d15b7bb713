"""Configs with values of wrong types and outside their ranges end in an error of one line, and never in a traceback."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import CourseError
from tests.published_families import FAMILIES
from tests.test_published_settings import changes_of, write_config

WRONG = ["7", None, 0, -1000, 1.5, math.nan, True, [3, -4], {"x": 1}]
COUNTS = {"num_hidden_layers", "num_attention_heads", "hidden_size", "image_size", "patch_size"}
ANY_CLASS = {"model_type", "id2label", "num_labels", "architectures", "quantization_config"}
ROTARY = {"rope_scaling", "rope_theta"}
MORE = {
    **{name: [10**12] for name in COUNTS},  # no model of such a size may be built
    "rope_parameters": [{"rope_type": kind} for kind in (None, [], 3, "llama3", "xpos")]
    + [{"rope_theta": theta} for theta in ("x", None, 0, -1.0)],
    "rope_scaling": ["x", 3, [], {"type": {}}],
    "rope_theta": ["x", None, 0],
    "model_type": [None, 3, [], "bert"],
    "id2label": [[], {"x": "cat"}, {"0": 3}, {"1": "cat"}, "cat"],
    "num_labels": ["x", -1, 1.5],
    "architectures": [3, [3], {}, "x"],
    "quantization_config": [{"bits": 4}],
    "vision_feature_layer": [99, -99, [0, 99], [[0]]],
    "image_grid_pinpoints": [[[12]], [[12, 13]], [12, 24]],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_malformed_setting_is_an_error_of_one_line(name, tmp_path):
    family, accepted = FAMILIES[name], []
    # Empty weights: every folder is refused, if not for its config, then for what is missing.
    save_file({"classifier.weight": torch.zeros(1)} if "classifier" in name else {}, tmp_path / "model.safetensors")
    settings = {(part, setting) for part, setting, _ in changes_of(name) if setting}
    settings |= {(part, more) for part, setting in settings if setting == "rope_parameters" for more in ROTARY}
    settings |= {(part, setting) for part in family.walked for setting in ANY_CLASS}
    settings |= {(None, part) for part in family.walked if part}
    for part, setting in sorted(settings, key=str):
        for value in [*WRONG, *MORE.get(setting, [])]:
            if setting in family.walked and (value is None or isinstance(value, dict)):
                continue  # a part of the class's default sizes, which takes long to build
            config = copy.deepcopy(dict(family.config))
            (config if part is None else config[part])[setting] = value
            write_config(family, config, tmp_path)
            try:
                with pytest.raises(CourseError) as raised:
                    family.load(tmp_path)
            except Exception as error:
                raise AssertionError(f"{part or 'config'}: {setting} = {value!r}") from error
            if str(raised.value).startswith("the weights in"):
                accepted.append((setting, value))
            else:
                assert str(raised.value).count("\n") == 0
    assert not [(setting, value) for setting, value in accepted if setting in COUNTS and value is not True]


def test_parts_that_are_no_objects_are_named(tmp_path):
    for part in ("vision_config", "text_config"):
        for value in (3, [], "x"):
            config = dict(FAMILIES["clip"].config) | {part: value}
            (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"} | config))
            with pytest.raises(CourseError, match=f"{part} is .*; expected an object of settings"):
                FAMILIES["clip"].load(tmp_path)


@pytest.mark.parametrize(
    ("name", "part", "change", "message"),
    [
        ("llama", None, {"hidden_size": "12"}, "hidden_size is '12', expected a whole number of at least 1"),
        ("llama", None, {"num_hidden_layers": 0}, "num_hidden_layers is 0, expected a whole number of at least 1"),
        ("llama", None, {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("llama", None, {"intermediate_size": None}, "intermediate_size is null"),
        ("llama", None, {"head_dim": 5}, "head_dim is 5"),
        ("clip text", None, {"eos_token_id": [3, 4]}, r"eos_token_id is \[3, 4\]"),
        ("clip text", None, {"eos_token_id": 99}, "eos_token_id is 99"),
        ("clip text", None, {"hidden_act": "swish"}, "hidden_act is 'swish', expected one of quick_gelu, gelu"),
        ("llava over llama", None, {"vision_feature_layer": 9}, r"vision_feature_layer is \[9\]"),
        ("idefics", None, {"cross_layer_interval": 3}, "cross_layer_interval 3 does not divide the 2 blocks"),
        ("dinov2", None, {"image_size": [12, 27]}, "image_size is .*equal sides"),
        ("vit", None, {"head_dim": 6}, "head_dim is 6, supported is only 4"),
        ("blip2 over opt", "qformer_config", {"num_attention_heads": 5}, "does not divide into 5 heads"),
    ],
)
def test_the_message_names_the_setting_and_what_was_expected(name, part, change, message, tmp_path):
    config = copy.deepcopy(dict(FAMILIES[name].config))
    (config if part is None else config[part]).update(change)
    write_config(FAMILIES[name], config, tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=message):
        FAMILIES[name].load(tmp_path)
