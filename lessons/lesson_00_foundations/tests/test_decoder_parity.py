"""Equality with `LlamaForCausalLM` and `Qwen2ForCausalLM`, both ways, in configurations odd enough that nothing is equal by accident."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.errors import CourseError
from shared.transformer import Decoder, DecoderConfig, Llama3Scaling

SMALL = {
    "vocab_size": 37,
    "hidden_size": 30,
    "num_hidden_layers": 3,
    "intermediate_size": 44,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CASES = {
    "grouped heads": SMALL | {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6},
    "as many key heads": SMALL | {"num_attention_heads": 3},
    "heads wider than their share": SMALL | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8},
    "tied": SMALL | {"num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "large eps": SMALL | {"num_attention_heads": 3, "rms_norm_eps": 0.1},
    "Llama 3 scaling": SMALL | {"num_attention_heads": 5, "head_dim": 12, "rope_parameters": LLAMA3},
}
OURS = {
    "grouped heads": DecoderConfig(41, 30, 2, 5, 1, 44, head_dim=6),
    "tied": DecoderConfig(41, 30, 3, 3, 1, 52, tied=True, rotary_base=777.0),
    "wide heads": DecoderConfig(41, 24, 2, 6, 2, 44, head_dim=10, norm_eps=0.05),
    "Llama 3 scaling": DecoderConfig(41, 30, 2, 5, 5, 44, head_dim=8, rotary_scaling=Llama3Scaling(4.0, 1.0, 3.0, 16)),
}


def redrawn(model):
    """Every weight anew: at their initial values the norms' gains, for one, have no effect."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (0.7 if parameter.ndim == 1 else 0.0))
    return model.eval()


def assert_same(ours, theirs, vocab):
    tokens = torch.randint(vocab, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_published_folder_gives_the_same_logits_here(case, tmp_path):
    theirs = redrawn(LlamaForCausalLM(LlamaConfig(**CASES[case])))
    theirs.save_pretrained(tmp_path)
    assert_same(LanguageModel.from_pretrained(tmp_path), theirs, 37)


@pytest.mark.parametrize("case", OURS)
def test_our_folder_gives_the_same_logits_there(case, tmp_path):
    ours = redrawn(LanguageModel(OURS[case]))
    ours.save_pretrained(tmp_path)
    theirs, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(ours, theirs.float(), 41)
    again = LanguageModel.from_pretrained(tmp_path)
    assert again.config.rotary_scaling == ours.config.rotary_scaling
    assert_same(again, theirs.float(), 41)


QWEN2 = {
    "untied": SMALL | {"num_attention_heads": 5, "num_key_value_heads": 1},
    "tied": SMALL
    | {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 36, "tie_word_embeddings": True},
    "heads wider than their share": SMALL | {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 14},
    "sizes of its rotary base and eps": SMALL
    | {
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "rms_norm_eps": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
    },
}


def assert_back_in(kind, folder, ours, vocab):
    theirs, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(ours, theirs.float().eval(), vocab)


@pytest.mark.parametrize("case", QWEN2)
def test_qwen2_both_ways(case, tmp_path):
    theirs = redrawn(Qwen2ForCausalLM(Qwen2Config(**QWEN2[case])))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = LanguageModel.from_pretrained(tmp_path / "theirs")
    assert ours.config.qkv_bias and ours.config.tied == (case == "tied")
    assert_same(ours, theirs, 37)
    ours.save_pretrained(tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert_back_in(Qwen2ForCausalLM, tmp_path / "ours", ours, 37)


def test_a_published_qwen2_config_of_version_4_is_read(tmp_path):
    """The file of Qwen2.5-0.5B has these keys: no `rope_parameters`, windows named and not used, a tied head."""
    theirs = redrawn(Qwen2ForCausalLM(Qwen2Config(**QWEN2["tied"] | {"rope_parameters": {"rope_theta": 1e6}})))
    theirs.save_pretrained(tmp_path)

    def age(config):
        for name in ("rope_parameters", "layer_types", "dtype", "head_dim", "hidden_act"):
            config.pop(name, None)
        config |= {"rope_theta": 1e6, "max_window_layers": 1, "sliding_window": 4, "use_sliding_window": False}

    rewrite(tmp_path, age)
    assert_same(LanguageModel.from_pretrained(tmp_path), theirs, 37)


def test_qwen2_that_looks_through_a_window_is_refused(tmp_path):
    theirs = Qwen2ForCausalLM(Qwen2Config(**QWEN2["untied"]))
    theirs.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda config: config.update(use_sliding_window=True))
    with pytest.raises(CourseError, match="use_sliding_window is True"):
        LanguageModel.from_pretrained(tmp_path)


def test_the_size_of_qwen2_of_half_a_billion():
    """What is published as "0.49 billion": 494,032,768 numbers, the tied head counted once."""
    config = DecoderConfig(151_936, 896, 24, 14, 2, 4864, rotary_base=1e6, norm_eps=1e-6, tied=True, qkv_bias=True)
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 494_032_768


def test_biases_start_at_zero():
    model = LanguageModel(DecoderConfig(11, 8, 1, 2, 1, 8, qkv_bias=True))
    biases = {name: parameter for name, parameter in model.named_parameters() if name.endswith("bias")}
    assert sorted(name.split(".")[-2] for name in biases) == ["key", "query", "value"]
    assert not any(bias.any() for bias in biases.values())


def rewrite(folder, change):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def test_both_spellings_of_the_rotary_settings_are_read(tmp_path):
    theirs = redrawn(LlamaForCausalLM(LlamaConfig(**CASES["Llama 3 scaling"])))
    theirs.save_pretrained(tmp_path)
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    for spelling in ({"rope_parameters": LLAMA3}, {"rope_theta": 5000.0, "rope_scaling": scaling}):

        def change(config, spelling=spelling):
            for name in ("rope_parameters", "rope_theta", "rope_scaling"):
                config.pop(name, None)
            config.update(spelling)

        rewrite(tmp_path, change)
        assert_same(LanguageModel.from_pretrained(tmp_path), theirs, 37)


def test_what_a_short_config_leaves_out_is_as_the_class_assumes(tmp_path):
    theirs = redrawn(LlamaForCausalLM(LlamaConfig(**CASES["as many key heads"])))
    theirs.save_pretrained(tmp_path)

    def shorten(config):
        for name in (
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
            "rope_parameters",
            "tie_word_embeddings",
            "hidden_act",
        ):
            config.pop(name, None)

    rewrite(tmp_path, shorten)
    assert_same(LanguageModel.from_pretrained(tmp_path), theirs, 37)


def test_stored_frequencies_of_old_files_and_a_repeated_tied_head_are_passed_over(tmp_path):
    theirs = redrawn(LlamaForCausalLM(LlamaConfig(**CASES["tied"])))
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(5)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert_same(LanguageModel.from_pretrained(tmp_path), theirs, 37)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "'mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"rope_parameters": LLAMA3 | {"factor": None}}, "factor is missing"),
        ({"hidden_size": 31, "head_dim": None}, "31 does not divide into 3"),
    ],
)
def test_another_model_is_refused(change, message, tmp_path):
    redrawn(LlamaForCausalLM(LlamaConfig(**CASES["as many key heads"]))).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        LanguageModel.from_pretrained(tmp_path)
