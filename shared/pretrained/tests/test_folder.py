"""Folders in the published layout: reading, refusals with their reasons, and atomic writing."""

import json
import pickle
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from shared.errors import CourseError
from shared.pretrained import (
    Checkpoint,
    Fixed,
    Join,
    Rename,
    Setting,
    Split,
    Tie,
    WeightNames,
    load_weights,
    read_config,
    read_settings,
    save_pretrained,
    setting_values,
    write_settings,
)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.query, self.key = nn.Linear(3, 4), nn.Linear(3, 4)
        self.fused = nn.Linear(3, 6)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("steps", torch.tensor(7))


NAMES = WeightNames(
    [
        Rename("embed_tokens.weight", "embedding.weight"),
        Split("qk.{leaf}", ["query.{leaf}", "key.{leaf}"]),
        Join(["gate.{leaf}", "up.{leaf}"], "fused.{leaf}"),
        Rename("steps", "steps"),
    ],
    ties=[Tie("lm_head.weight", "embed_tokens.weight")],
    ignore=["position_ids"],
)


@pytest.fixture
def saved(tmp_path):
    model = Small()
    save_pretrained(tmp_path, model, NAMES, {"model_type": "small"})
    return model, tmp_path


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def assert_equal(one, other):
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_both_files_have_the_permissions_of_a_new_file(saved):
    _, folder = saved
    (folder / "other").touch()
    modes = {name: (folder / name).stat().st_mode for name in ("other", "config.json", "model.safetensors")}
    assert len(set(modes.values())) == 1, modes


def test_save_then_load(saved):
    model, folder = saved
    assert load_file(folder / "model.safetensors").keys() == {
        *("embed_tokens.weight", "qk.weight", "qk.bias", "gate.weight", "gate.bias", "up.weight", "up.bias", "steps")
    }
    assert read_config(folder) == {"model_type": "small", "torch_dtype": "float32"}
    other = Small()
    other.steps.zero_()
    load_weights(other, folder, NAMES)
    assert_equal(model, other)
    assert other.head.weight is other.embedding.weight


def test_every_problem_is_in_one_error_and_nothing_is_copied(saved):
    _, folder = saved

    def spoil(tensors):
        del tensors["gate.bias"]
        tensors["qk.weight"] = torch.zeros(8, 4)
        tensors["extra"] = torch.zeros(2)
        tensors["steps"] = torch.tensor(7.0)
        tensors["lm_head.weight"] = torch.zeros(5, 3)

    rewrite(folder, spoil)
    model = Small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CourseError) as caught:
        load_weights(model, folder, NAMES)
    message = str(caught.value)
    for line in (
        "missing: gate.bias [3]",
        "mis-shaped: qk.weight is [8, 4], expected [8, 3]",
        "surplus: extra [2]",
        "mistyped: steps is F32, expected torch.int64",
        "untied: lm_head.weight differs from embed_tokens.weight",
    ):
        assert line in message
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_ignored_and_tied_names_may_be_in_the_file(saved):
    model, folder = saved
    rewrite(
        folder,
        lambda tensors: tensors.update(
            {"position_ids": torch.arange(9), "lm_head.weight": tensors["embed_tokens.weight"].clone()}
        ),
    )
    other = Small()
    load_weights(other, folder, NAMES)
    assert_equal(model, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_in_other_precisions_fill_a_float32_model(saved, dtype):
    model, folder = saved
    rewrite(
        folder,
        lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items() if v.is_floating_point()}),
    )
    other = Small()
    load_weights(other, folder, NAMES)
    assert other.query.weight.dtype == torch.float32
    assert torch.equal(other.query.weight, model.query.weight.to(dtype).float())


def test_shards_with_an_index_are_one_checkpoint(saved):
    model, folder = saved
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, shard_names in shards.items():
        save_file({name: tensors[name] for name in shard_names}, folder / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    other = Small()
    load_weights(other, folder, NAMES)
    assert_equal(model, other)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CourseError, match=r"lacks model-00002-of-00002.safetensors of its 2 shards"):
        load_weights(other, folder, NAMES)


def write_shards(folder, shards):
    """Write one file per dictionary of tensors, with an index in which the last file of each name wins."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    files = {f"model-{place}.safetensors": tensors for place, tensors in enumerate(shards)}
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("name", ["embed_tokens.weight", "steps"])
def test_shards_with_different_values_of_one_tensor_are_refused(saved, name):
    model, folder = saved
    tensors = load_file(folder / "model.safetensors")
    others = [tensors[name] + 1, tensors[name].to(torch.float16), tensors[name][None]]
    for other in others:
        write_shards(folder, [tensors, {name: other}])
        with pytest.raises(CourseError, match=f"model-0.* and model-1.* hold different values of {name}"):
            load_weights(Small(), folder, NAMES)
    write_shards(folder, [tensors, {name: tensors[name].clone()}])
    again = Small()
    load_weights(again, folder, NAMES)
    assert_equal(model, again)


def test_shards_may_repeat_a_tensor_with_nan(tmp_path):
    write_shards(tmp_path, [{"w": torch.tensor([float("nan"), 1.0])}] * 2)
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint["w"][1] == 1


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "encoder."])
def test_a_prefix_of_all_names_is_stated_in_one_line(saved, prefix):
    _, folder = saved
    rewrite(folder, lambda tensors: tensors.update({prefix + name: tensors.pop(name) for name in list(tensors)}))
    with pytest.raises(CourseError, match=f"the weight names in .* contain '{prefix}', and without it") as caught:
        load_weights(Small(), folder, NAMES)
    assert "\n" not in str(caught.value)


def test_a_compiled_part_of_a_model_is_stated_in_one_line(saved):
    _, folder = saved

    def compile_parts(tensors):
        for name in ("qk.weight", "qk.bias"):
            tensors[name.replace(".", "._orig_mod.")] = tensors.pop(name)

    rewrite(folder, compile_parts)
    with pytest.raises(CourseError, match=r"contain '_orig_mod\.', and without it"):
        load_weights(Small(), folder, NAMES)


def test_another_model_with_a_common_prefix_is_listed(saved):
    _, folder = saved
    (folder / "model.safetensors").unlink()
    save_file({"module.other": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CourseError, match=r"surplus: module\.other"):
        load_weights(Small(), folder, NAMES)


def test_an_index_may_not_point_outside_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))
    with pytest.raises(CourseError, match="outside its folder"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_file_is_named(saved, keep):
    _, folder = saved
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CourseError, match=r"model.safetensors is not a complete safetensors file"):
        load_weights(Small(), folder, NAMES)


def test_a_corrupt_header_is_named(saved):
    _, folder = saved
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[12:20] = b"\xff" * 8
    file.write_bytes(content)
    with pytest.raises(CourseError, match="truncated or corrupt"):
        load_weights(Small(), folder, NAMES)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_opened(tmp_path, name):
    mark = tmp_path / "the pickle ran"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(str(mark))))
    with pytest.raises(CourseError) as caught:
        load_weights(Small(), tmp_path, NAMES)
    assert not mark.exists()
    if name != "model.safetensors":
        assert "pickle" in str(caught.value) and "convert" in str(caught.value)


def test_a_folder_without_weights_or_settings(tmp_path):
    with pytest.raises(CourseError, match="contains no weights"):
        load_weights(Small(), tmp_path, NAMES)
    with pytest.raises(CourseError, match=r"config\.json does not exist"):
        read_config(tmp_path)
    with pytest.raises(CourseError, match="is not a folder"):
        read_config(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CourseError, match="cannot be read as JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(CourseError, match="cannot be read as JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CourseError, match="JSON list"):
        read_config(tmp_path)


def test_a_disk_that_fills_up_leaves_the_old_files_unchanged(saved):
    """A limit on file size stops the write halfway, in a separate process, as a full disk would."""
    model, folder = saved
    program = f"""
import resource, signal, torch
from shared.errors import CourseError
from shared.pretrained import Rename, WeightNames, save_pretrained
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    save_pretrained({str(folder)!r}, torch.nn.Linear(100, 100), WeightNames([Rename("{{leaf}}", "{{leaf}}")]), {{}})
except CourseError as error:
    print(error)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write" in run.stdout and "model.safetensors: " in run.stdout, run.stdout + run.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    other = Small()
    load_weights(other, folder, NAMES)
    assert_equal(model, other)


def test_a_full_disk_is_reported_and_leaves_no_partial_file(saved, monkeypatch):
    model, folder = saved

    def no_space(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared.pretrained.folder.save_file", no_space)
    with pytest.raises(CourseError, match=r"No space left on device.*free disk space"):
        save_pretrained(folder, model, NAMES, {})
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CourseError, match="cannot write"):
        save_pretrained(tmp_path / "file" / "folder", Small(), NAMES, {})


SETTINGS = [
    Setting("hidden_size", "width", accept=setting_values.integer()),
    Setting("num_layers", "depth", default=12, also=("n_layer",)),
    Setting("image_size", "image_size", default=224, accept=setting_values.sides),
    Fixed("hidden_act", "gelu"),
]


def test_settings_in_both_directions():
    fields = {"width": 8, "depth": 3, "image_size": (4, 6)}
    published = write_settings(SETTINGS, fields)
    assert published == {"hidden_size": 8, "num_layers": 3, "image_size": (4, 6), "hidden_act": "gelu"}
    assert read_settings(SETTINGS, json.loads(json.dumps(published))) == fields
    assert read_settings(SETTINGS, {"hidden_size": 8, "n_layer": 2}) == {"width": 8, "depth": 2, "image_size": 224}


def test_settings_that_do_not_fit_are_all_listed():
    with pytest.raises(CourseError) as caught:
        read_settings(SETTINGS, {"hidden_act": "relu"})
    assert "hidden_size is missing" in str(caught.value)
    assert "hidden_act is 'relu', supported is only 'gelu'" in str(caught.value)
