"""Every type of adapter, on every storage of the weights, tied or not: saved, loaded here and by PEFT, and merged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.errors import CourseError
from shared.finetuning import (
    AdapterConfig,
    Int8Linear,
    NF4Linear,
    add_adapters,
    find_adapters,
    load_adapters,
    merge_and_remove_adapters,
    published_adapter_names,
    quantize_linears,
    save_adapters,
)
from shared.finetuning.tests.adapted_models import (
    NAMES,
    TIED_NAMES,
    decoder,
    draw_adapters,
    published_llama,
    tokens,
)
from shared.pretrained import WeightNames
from shared.transformer import Decoder

ADAPTERS = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
STORAGE = pytest.mark.parametrize("layer_class", [None, Int8Linear, NF4Linear], ids=["float32", "int8", "nf4"])
TIED = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


def adapted(layer_class: type | None, *, dora: bool, tied: bool) -> Decoder:
    """Return a decoder with adapters of random weights, on quantized layers if there is a class for them."""
    model = decoder(tied=tied).eval()
    if layer_class is not None:
        quantize_linears(model, layer_class, ("blocks.*",))
    add_adapters(model, AdapterConfig(("*.query", "*.down"), rank=3, alpha=6.0, dora=dora))
    draw_adapters(model)
    return model


def names_of(tied: bool) -> WeightNames:
    return TIED_NAMES if tied else NAMES


@ADAPTERS
@STORAGE
@TIED
def test_saved_adapters_are_loaded_and_merged(layer_class, dora, tied, tmp_path):
    model = adapted(layer_class, dora=dora, tied=tied)
    save_adapters(tmp_path, model, names_of(tied))
    layers = {name.split(".lora_")[0] for name in load_file(tmp_path / "adapter_model.safetensors")}
    expected = {f"model.layers.{n}.{part}" for n in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")}
    assert layers == {f"base_model.model.{name}" for name in expected}
    again = decoder(tied=tied).eval()
    if layer_class is not None:
        quantize_linears(again, layer_class, ("blocks.*",))
    assert set(load_adapters(tmp_path, again, names_of(tied))) == set(find_adapters(model))
    assert torch.equal(again(tokens()), model(tokens()))
    merged = decoder(tied=tied).eval()
    load_adapters(tmp_path, merged, names_of(tied))
    logits = merged(tokens())
    merge_and_remove_adapters(merged)
    torch.testing.assert_close(merged(tokens()), logits, rtol=1e-4, atol=1e-4)
    assert (merged.output.weight is merged.embedding.weight) == tied
    assert (logits - decoder(tied=tied).eval()(tokens())).abs().max() > 0.1


@ADAPTERS
@STORAGE
@TIED
def test_peft_loads_and_merges_them(layer_class, dora, tied, tmp_path):
    peft = pytest.importorskip("peft", reason="live comparison: pip install -r requirements/oracles.txt")
    reference = peft.PeftModel.from_pretrained(published(tied), save(layer_class, dora, tied, tmp_path)).eval()
    model = decoder(tied=tied).eval()
    load_adapters(tmp_path, model, names_of(tied))
    with torch.no_grad():
        expected = model(tokens())
        torch.testing.assert_close(reference(tokens()).logits, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(reference.merge_and_unload()(tokens()).logits, expected, rtol=1e-3, atol=1e-3)


def save(layer_class: type | None, dora: bool, tied: bool, folder: Path) -> Path:
    save_adapters(folder, adapted(layer_class, dora=dora, tied=tied), names_of(tied))
    return folder


def published(tied: bool) -> torch.nn.Module:
    """Return the published class with the weights of `decoder(tied=tied)`."""
    model = published_llama(tied=tied).eval()
    weights = names_of(tied).to_published(dict(decoder(tied=tied).named_parameters()))
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if tied else [])
    model.tie_weights()
    return model


def test_a_tied_output_layer_gets_no_adapter(tmp_path):
    with pytest.raises(ValueError, match="output shares its weight"):
        add_adapters(decoder(tied=True), AdapterConfig(("output",)))
    model = decoder()
    add_adapters(model, AdapterConfig(("output",)))
    for number, (folder_names, tied_names) in enumerate(((None, None), (NAMES, TIED_NAMES))):
        save_adapters(tmp_path / str(number), model, folder_names)
        with pytest.raises(CourseError, match="the model has no linear layer of this name"):
            load_adapters(tmp_path / str(number), decoder(tied=True), tied_names)


def test_layers_that_are_not_adapted_need_no_published_name(tmp_path):
    """A published model may lack layers of ours, as long as they have no adapter."""
    names = WeightNames([rule for rule in NAMES.rules if "mlp" not in rule.patterns[1][0]])
    model = decoder()
    add_adapters(model, AdapterConfig(("*.query",)))
    save_adapters(tmp_path, model, names)
    assert len(load_adapters(tmp_path, decoder(), names)) == 2


def test_adapters_without_a_published_name_are_found_before_training():
    names = WeightNames([rule for rule in NAMES.rules if "mlp" not in rule.patterns[1][0]])
    model = decoder()
    add_adapters(model, AdapterConfig(("*.query", "*.up")))
    with pytest.raises(CourseError, match=r"blocks\.0\.mlp\.up, blocks\.1\.mlp\.up: not in the published model"):
        published_adapter_names(model, names)
    assert published_adapter_names(model, NAMES)["blocks.1.mlp.up"] == "model.layers.1.mlp.up_proj"
