"""Runs that train adapters: on language models with tied embeddings, quantized or not, and after a failed save."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.config import CONFIGURATIONS, AdapterSettings, Configuration, load, save
from apps.assistant.train import train_assistant
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model import language_model as qwen2
from shared.errors import CourseError
from shared.finetuning import load_adapters
from shared.pretrained import WeightNames

ADAPTERS = AdapterSettings(("*.query", "*.down"), rank=2, alpha=16.0)


@pytest.fixture
def tied(model_folders, tied_language_folder):
    """The configuration `debug` with tiny models, the language model with tied embeddings, for a few steps."""
    debug = load(CONFIGURATIONS / "debug.json")
    model = replace(debug.model, vision=str(model_folders[0]), language=str(tied_language_folder), context=80)
    stages = tuple(replace(stage, steps=3, warmup_steps=0, batch_size=4) for stage in debug.stages)
    return replace(debug, model=replace(model, adapters=ADAPTERS), stages=stages, toy_examples=8)


def with_adapters(configuration: Configuration, weights: str, *, dora: bool) -> Configuration:
    model = replace(configuration.model, weights=weights, adapters=replace(ADAPTERS, dora=dora))
    return replace(configuration, model=model)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("weights", ["float32", "int8", "nf4"])
def test_adapters_of_a_tied_language_model_are_saved_and_merged(weights, dora, tied, tmp_path):
    folder = train_assistant(with_adapters(tied, weights, dora=dora), tmp_path)
    layers = {name.split(".lora_")[0] for name in load_file(tmp_path / "adapters" / "adapter_model.safetensors")}
    assert layers == {
        f"base_model.model.model.layers.{n}.{part}" for n in range(2) for part in ("self_attn.q_proj", "mlp.down_proj")
    }
    start = build_model(replace(tied.model, adapters=None)).model.language_model.state_dict()
    end = Assistant.from_folder(folder).model.language_model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {f"blocks.{n}.{part}.weight" for n in range(2) for part in ("attention.query", "mlp.down")}


def test_peft_loads_the_adapters_of_a_tied_qwen2(tied, tmp_path):
    peft = pytest.importorskip("peft", reason="live comparison: pip install -r requirements/oracles.txt")
    from transformers import Qwen2ForCausalLM

    train_assistant(tied, tmp_path)
    model = LanguageModel.from_pretrained(tied.model.language)
    load_adapters(tmp_path / "adapters", model, qwen2.weight_names(model.config))
    reference = peft.PeftModel.from_pretrained(
        Qwen2ForCausalLM.from_pretrained(tied.model.language).eval(), tmp_path / "adapters"
    )
    token_ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(reference(token_ids).logits, model(token_ids), rtol=1e-3, atol=1e-3)
        merged = Assistant.from_folder(tmp_path / "model").model.language_model
        torch.testing.assert_close(merged(token_ids), model(token_ids), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weights", ["float32", "nf4"])
def test_a_run_whose_saving_failed_is_resumed_without_training(weights, tied, tmp_path, monkeypatch):
    configuration = with_adapters(tied, weights, dora=False)
    expected = load_file(train_assistant(configuration, tmp_path / "whole") / "model.safetensors")
    with monkeypatch.context() as patch:

        def fail(self: Assistant, folder: object) -> None:
            raise CourseError("the disk is full")

        patch.setattr(Assistant, "save", fail)
        with pytest.raises(CourseError, match="the disk is full"):
            train_assistant(configuration, tmp_path / "cut")
    assert (tmp_path / "cut" / "adapters" / "adapter_model.safetensors").exists()
    assert (tmp_path / "cut" / "instruction" / "checkpoint.safetensors").exists()
    monkeypatch.setattr(
        "apps.assistant.training_data.TrainingData.loss", lambda *_: pytest.fail("the run was complete: no step is due")
    )
    folder = train_assistant(configuration, tmp_path / "cut", resume=True)
    weights_now = load_file(folder / "model.safetensors")
    assert weights_now.keys() == expected.keys()
    assert all(torch.equal(weights_now[name], expected[name]) for name in expected)


def test_adapters_that_cannot_be_saved_are_refused_before_training(tied, tmp_path, monkeypatch):
    names = qwen2.weight_names(LanguageModel.from_pretrained(tied.model.language).config)
    incomplete = WeightNames([rule for rule in names.rules if "mlp" not in rule.patterns[1][0]], ties=names.ties)
    monkeypatch.setattr("apps.assistant.train.llama", SimpleNamespace(weight_names=lambda config: incomplete))
    with pytest.raises(CourseError, match=r"blocks\.0\.mlp\.down.*not in the published model"):
        train_assistant(tied, tmp_path)
    assert not (tmp_path / "alignment").exists()


def test_a_new_run_removes_the_adapters_of_an_earlier_one(tied, tmp_path):
    train_assistant(tied, tmp_path)
    save(tied, tmp_path / "configuration.json")
    train_assistant(replace(tied, model=replace(tied.model, adapters=None)), tmp_path)
    assert not (tmp_path / "adapters").exists()
