"""Adapters on disk: PEFT's files give the same logits here, and files written here equal PEFT's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import CourseError
from shared.finetuning import (
    AdapterConfig,
    DoRALinear,
    NF4Linear,
    add_adapters,
    find_adapters,
    load_adapters,
    quantize_linears,
    save_adapters,
)
from shared.finetuning.tests.adapted_models import CONFIG, NAMES, decoder, draw_adapters, tokens
from shared.pretrained import Split, WeightNames
from shared.transformer import Decoder

EXPECTED = Path(__file__).parent / "expected"
STORED = ["lora", "dora", "patterns"]


def llama() -> Decoder:
    """Return our decoder with the weights of the model that PEFT's adapters belong to."""
    model = Decoder(CONFIG).eval()
    weights = load_file(EXPECTED / "llama.safetensors")
    with torch.no_grad():
        for match in NAMES.matches(dict(model.named_parameters())):
            model.get_parameter(match.model[0]).copy_(weights[match.published[0]])
    return model


@pytest.mark.parametrize("name", STORED)
def test_pefts_adapters_give_the_same_logits(name):
    model = llama()
    plain = model(tokens())
    load_adapters(EXPECTED / name, model, NAMES)
    logits = load_file(EXPECTED / name / "logits.safetensors")["logits"]
    assert (logits - plain).abs().max() > 0.1
    torch.testing.assert_close(model(tokens()), logits, rtol=1e-4, atol=1e-4)
    classes = {type(adapter) for adapter in find_adapters(model).values()}
    assert (classes == {DoRALinear}) == (name == "dora")


@pytest.mark.parametrize("name", STORED)
def test_written_files_equal_pefts(name, tmp_path):
    model = llama()
    load_adapters(EXPECTED / name, model, NAMES)
    save_adapters(tmp_path, model, NAMES, base_model="a-llama")
    written, expected = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, EXPECTED / name))
    assert written.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in written.items())
    config, published = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path, EXPECTED / name)
    )
    assert config.keys() <= published.keys() and config["base_model_name_or_path"] == "a-llama"
    for key in ("peft_type", "lora_dropout", "use_dora", "bias", "fan_in_fan_out"):
        assert config[key] == published[key], key
    if name != "patterns":
        assert (config["r"], config["lora_alpha"]) == (published["r"], published["lora_alpha"])
        assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert all(any(name.endswith(leaf) for leaf in published["target_modules"]) for name in config["target_modules"])


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("names", [None, NAMES], ids=["internal names", "published names"])
def test_saved_and_loaded_adapters_give_the_same_logits(dora, names, tmp_path):
    model = decoder()
    layers = add_adapters(model, AdapterConfig(("*.query", "*.gate", "output"), rank=5, alpha=7.5, dora=dora))
    draw_adapters(model)
    save_adapters(tmp_path, model, names)
    other = decoder()
    assert sorted(load_adapters(tmp_path, other, names)) == sorted(layers)
    assert torch.equal(other(tokens()), model(tokens()))
    trainable = {name for name, p in other.named_parameters() if p.requires_grad}
    assert trainable == {name for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_move_between_a_quantized_model_and_a_whole_one(tmp_path):
    model = decoder()
    quantize_linears(model, NF4Linear, ("blocks.*",))
    add_adapters(model, AdapterConfig(("*.query", "*.up")))
    draw_adapters(model)
    save_adapters(tmp_path, model, NAMES)
    other = decoder()
    load_adapters(tmp_path, other, NAMES)
    for name, adapter in find_adapters(other).items():
        assert torch.equal(adapter.lora_up.weight, find_adapters(model)[name].lora_up.weight)


def change(folder, tmp_path, change_tensors=lambda tensors: None, **settings):
    tensors = load_file(folder / "adapter_model.safetensors")
    change_tensors(tensors)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text()) | settings
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "'IA3'; supported is 'LORA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"use_something_new": True}, "use_something_new is True"),
        ({"use_dora": True}, "has shapes .*expected .*lora_magnitude_vector"),
    ],
)
def test_settings_that_change_the_meaning_raise(settings, message, tmp_path):
    model = llama()
    before = list(model.state_dict())
    with pytest.raises(CourseError, match=message):
        load_adapters(change(EXPECTED / "lora", tmp_path, **settings), model, NAMES)
    assert list(model.state_dict()) == before and all(p.requires_grad for p in model.parameters())


def test_all_tensors_that_do_not_fit_are_listed_and_nothing_is_changed(tmp_path):
    prefix = "base_model.model.model.layers.0."

    def spoil(tensors):
        tensors[prefix + "self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 25)
        del tensors[prefix + "self_attn.v_proj.lora_B.weight"]
        tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 24)
        tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(4, 31)

    model = llama()
    with pytest.raises(CourseError) as error_info:
        load_adapters(change(EXPECTED / "lora", tmp_path, spoil), model, NAMES)
    message = str(error_info.value)
    for line in (
        "model.layers.0.self_attn.q_proj: has shapes {'lora_A.weight': (4, 25)",
        "model.layers.0.self_attn.v_proj: has shapes",
        "model.layers.9.mlp.up_proj: the model has no linear layer of this name",
        "embed_tokens.lora_embedding_A: the model has no linear layer of this name",
    ):
        assert line in message
    assert not find_adapters(model) and all(p.requires_grad for p in model.parameters())


def test_missing_and_damaged_files_raise(tmp_path):
    with pytest.raises(CourseError, match=r"adapter_config\.json cannot be read"):
        load_adapters(tmp_path, llama(), NAMES)
    folder = change(EXPECTED / "lora", tmp_path)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CourseError, match="not a complete safetensors file"):
        load_adapters(folder, llama(), NAMES)
    weights.unlink()
    with pytest.raises(CourseError, match=r"adapter_model\.safetensors does not exist"):
        load_adapters(folder, llama(), NAMES)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CourseError, match="type \\[\\]"):
        load_adapters(folder, llama(), NAMES)


def test_a_part_of_a_fused_layer_is_not_saved(tmp_path):
    attention = "blocks.{n}.attention."
    fused = Split("layers.{n}.qkv.weight", [attention + part + ".weight" for part in ("query", "key", "value")])
    model = decoder()
    add_adapters(model, AdapterConfig(("*.query", "*.output")))
    with pytest.raises(CourseError, match=r"blocks\.0\.attention\.query, .*only parts of a published layer"):
        save_adapters(tmp_path, model, WeightNames([fused, *NAMES.rules]))
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapters(tmp_path, decoder(), NAMES)


@pytest.mark.parametrize("name", STORED)
def test_peft_loads_written_files(name, tmp_path):
    peft = pytest.importorskip("peft", reason="live comparison: pip install -r requirements/oracles.txt")
    from shared.finetuning.tests.write_expected import llama as published_llama

    model = llama()
    load_adapters(EXPECTED / name, model, NAMES)
    draw_adapters(model, seed=8)
    save_adapters(tmp_path, model, NAMES)
    reference = peft.PeftModel.from_pretrained(published_llama(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens()), reference(tokens()).logits, rtol=1e-4, atol=1e-4)
        merged = reference.merge_and_unload()
        torch.testing.assert_close(model(tokens()), merged(tokens()).logits, rtol=1e-3, atol=1e-3)
