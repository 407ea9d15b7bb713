"""Adapters on disk: what PEFT has written means the same here, and what is written here means the same there."""

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
from shared.finetuning.tests.adapted_models import CONFIG, TABLE, decoder, draw_adapters, tokens
from shared.pretrained import Split, WeightNames
from shared.transformer import Decoder

EXPECTED = Path(__file__).parent / "expected"
STORED = ["lora", "dora", "patterns"]


def llama() -> Decoder:
    """Our decoder with the weights of the one that PEFT's adapters were made for."""
    model = Decoder(CONFIG).eval()
    weights = load_file(EXPECTED / "llama.safetensors")
    with torch.no_grad():
        for match in TABLE.matches(dict(model.named_parameters())):
            model.get_parameter(match.model[0]).copy_(weights[match.published[0]])
    return model


@pytest.mark.parametrize("name", STORED)
def test_what_peft_has_written_says_the_same_here(name):
    model = llama()
    plain = model(tokens())
    load_adapters(EXPECTED / name, model, TABLE)
    logits = load_file(EXPECTED / name / "logits.safetensors")["logits"]
    assert (logits - plain).abs().max() > 0.1
    torch.testing.assert_close(model(tokens()), logits, rtol=1e-4, atol=1e-4)
    kinds = {type(adapter) for adapter in find_adapters(model).values()}
    assert (kinds == {DoRALinear}) == (name == "dora")


@pytest.mark.parametrize("name", STORED)
def test_what_is_written_here_is_what_peft_has_written(name, tmp_path):
    model = llama()
    load_adapters(EXPECTED / name, model, TABLE)
    save_adapters(tmp_path, model, TABLE, base_model="a-llama")
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, EXPECTED / name))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
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
@pytest.mark.parametrize("table", [None, TABLE], ids=["our names", "published names"])
def test_saved_and_loaded_the_logits_are_the_same(dora, table, tmp_path):
    model = decoder()
    names = add_adapters(model, AdapterConfig(("*.query", "*.gate", "output"), rank=5, alpha=7.5, dora=dora))
    draw_adapters(model)
    save_adapters(tmp_path, model, table)
    other = decoder()
    assert sorted(load_adapters(tmp_path, other, table)) == sorted(names)
    assert torch.equal(other(tokens()), model(tokens()))
    learning = {name for name, p in other.named_parameters() if p.requires_grad}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_move_between_a_quantized_model_and_a_whole_one(tmp_path):
    model = decoder()
    quantize_linears(model, NF4Linear, ("blocks.*",))
    add_adapters(model, AdapterConfig(("*.query", "*.up")))
    draw_adapters(model)
    save_adapters(tmp_path, model, TABLE)
    other = decoder()
    load_adapters(tmp_path, other, TABLE)
    for name, adapter in find_adapters(other).items():
        assert torch.equal(adapter.lora_up.weight, find_adapters(model)[name].lora_up.weight)


def change(folder, tmp_path, tensors=lambda held: None, **settings):
    held = load_file(folder / "adapter_model.safetensors")
    tensors(held)
    save_file(held, tmp_path / "adapter_model.safetensors")
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
        ({"use_dora": True}, "found .*expected .*lora_magnitude_vector"),
    ],
)
def test_settings_that_change_the_meaning_are_refused(settings, message, tmp_path):
    model = llama()
    before = list(model.state_dict())
    with pytest.raises(CourseError, match=message):
        load_adapters(change(EXPECTED / "lora", tmp_path, **settings), model, TABLE)
    assert list(model.state_dict()) == before and all(p.requires_grad for p in model.parameters())


def test_tensors_that_do_not_fit_are_all_listed_and_nothing_is_changed(tmp_path):
    prefix = "base_model.model.model.layers.0."

    def spoil(held):
        held[prefix + "self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 25)
        del held[prefix + "self_attn.v_proj.lora_B.weight"]
        held["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 24)
        held["base_model.model.model.embed_tokens.lora_embedding_A"] = torch.zeros(4, 31)

    model = llama()
    with pytest.raises(CourseError) as caught:
        load_adapters(change(EXPECTED / "lora", tmp_path, spoil), model, TABLE)
    message = str(caught.value)
    for line in (
        "model.layers.0.self_attn.q_proj: found {'lora_A.weight': (4, 25)",
        "model.layers.0.self_attn.v_proj: found",
        "model.layers.9.mlp.up_proj: the model has no linear layer of this name",
        "embed_tokens.lora_embedding_A: the model has no linear layer of this name",
    ):
        assert line in message
    assert not find_adapters(model) and all(p.requires_grad for p in model.parameters())


def test_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(CourseError, match=r"adapter_config\.json cannot be read"):
        load_adapters(tmp_path, llama(), TABLE)
    folder = change(EXPECTED / "lora", tmp_path)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CourseError, match="not a whole safetensors file"):
        load_adapters(folder, llama(), TABLE)
    weights.unlink()
    with pytest.raises(CourseError, match=r"adapter_model\.safetensors does not exist"):
        load_adapters(folder, llama(), TABLE)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CourseError, match="type \\[\\]"):
        load_adapters(folder, llama(), TABLE)


def test_a_part_of_a_fused_layer_is_not_saved_under_a_wrong_name(tmp_path):
    attention = "blocks.{n}.attention."
    fused = Split("layers.{n}.qkv.weight", [attention + part + ".weight" for part in ("query", "key", "value")])
    model = decoder()
    add_adapters(model, AdapterConfig(("*.query", "*.output")))
    with pytest.raises(CourseError, match=r"blocks\.0\.attention\.query, .*only parts of a published layer"):
        save_adapters(tmp_path, model, WeightNames([fused, *TABLE.rules]))
    with pytest.raises(ValueError, match="no adapters to save"):
        save_adapters(tmp_path, decoder(), TABLE)


@pytest.mark.parametrize("name", STORED)
def test_peft_itself_reads_what_is_written_here(name, tmp_path):
    peft = pytest.importorskip("peft", reason="live comparison: pip install -r requirements/oracles.txt")
    from shared.finetuning.tests.write_expected import llama as published_llama

    model = llama()
    load_adapters(EXPECTED / name, model, TABLE)
    draw_adapters(model, seed=8)
    save_adapters(tmp_path, model, TABLE)
    theirs = peft.PeftModel.from_pretrained(published_llama(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, rtol=1e-4, atol=1e-4)
        merged = theirs.merge_and_unload()
        torch.testing.assert_close(model(tokens()), merged(tokens()).logits, rtol=1e-3, atol=1e-3)
