"""Parity with `LlamaForCausalLM` and `Qwen2ForCausalLM` in both directions, for configurations of unusual sizes."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Decoder, DecoderConfig, Llama3Scaling

SMALL = {
    "vocab_size": 37,
    "hidden_size": 30,
    "num_hidden_layers": 3,
    "intermediate_size": 44,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 16,
}
CASES = {
    "grouped heads": SMALL | {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6},
    "equally many key heads": SMALL | {"num_attention_heads": 3},
    "head_dim above width / heads": SMALL | {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8},
    "tied": SMALL | {"num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "large eps": SMALL | {"num_attention_heads": 3, "rms_norm_eps": 0.1},
    "Llama 3 scaling": SMALL | {"num_attention_heads": 5, "head_dim": 12, "rope_parameters": LLAMA3},
}
OUR_CONFIGS = {
    "grouped heads": DecoderConfig(41, 30, 2, 5, 1, 44, head_dim=6),
    "tied": DecoderConfig(41, 30, 3, 3, 1, 52, tied=True, rotary_base=777.0),
    "wide heads": DecoderConfig(41, 24, 2, 6, 2, 44, head_dim=10, norm_eps=0.05),
    "Llama 3 scaling": DecoderConfig(41, 30, 2, 5, 5, 44, head_dim=8, rotary_scaling=Llama3Scaling(4.0, 1.0, 3.0, 16)),
}


def assert_equal_logits(model, published, vocab_size):
    token_ids = torch.randint(vocab_size, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), published(token_ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_gives_equal_logits(case, tmp_path):
    published = redraw_weights(LlamaForCausalLM(LlamaConfig(**CASES[case])), gain=0.7)
    published.save_pretrained(tmp_path)
    assert_equal_logits(LanguageModel.from_pretrained(tmp_path), published, 37)


@pytest.mark.parametrize("case", OUR_CONFIGS)
def test_our_folder_gives_equal_logits_in_transformers(case, tmp_path):
    model = redraw_weights(LanguageModel(OUR_CONFIGS[case]), gain=0.7)
    model.save_pretrained(tmp_path)
    published, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_equal_logits(model, published.float(), 41)
    again = LanguageModel.from_pretrained(tmp_path)
    assert again.config.rotary_scaling == model.config.rotary_scaling
    assert_equal_logits(again, published.float(), 41)


QWEN2 = {
    "untied": SMALL | {"num_attention_heads": 5, "num_key_value_heads": 1},
    "tied": SMALL
    | {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 36, "tie_word_embeddings": True},
    "head_dim above width / heads": SMALL | {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 14},
    "rotary base and eps": SMALL
    | {
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "rms_norm_eps": 0.1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50.0},
    },
}


def assert_loads_in_transformers(model_class, folder, model, vocab_size):
    published, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_equal_logits(model, published.float().eval(), vocab_size)


@pytest.mark.parametrize("case", QWEN2)
def test_qwen2_in_both_directions(case, tmp_path):
    published = redraw_weights(Qwen2ForCausalLM(Qwen2Config(**QWEN2[case])), gain=0.7)
    published.save_pretrained(tmp_path / "published")
    model = LanguageModel.from_pretrained(tmp_path / "published")
    assert model.config.qkv_bias and model.config.tied == (case == "tied")
    assert_equal_logits(model, published, 37)
    model.save_pretrained(tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert_loads_in_transformers(Qwen2ForCausalLM, tmp_path / "ours", model, 37)


def test_a_published_qwen2_config_of_version_4_is_read(tmp_path):
    """Qwen2.5-0.5B's file has these keys: no `rope_parameters`, unused sliding windows, a tied head."""
    config = Qwen2Config(**QWEN2["tied"] | {"rope_parameters": {"rope_theta": 1e6}})
    published = redraw_weights(Qwen2ForCausalLM(config), gain=0.7)
    published.save_pretrained(tmp_path)

    def to_version_4(config):
        for name in ("rope_parameters", "layer_types", "dtype", "head_dim", "hidden_act"):
            config.pop(name, None)
        config |= {"rope_theta": 1e6, "max_window_layers": 1, "sliding_window": 4, "use_sliding_window": False}

    rewrite_config(tmp_path, to_version_4)
    assert_equal_logits(LanguageModel.from_pretrained(tmp_path), published, 37)


def test_qwen2_with_a_sliding_window_is_an_error(tmp_path):
    published = Qwen2ForCausalLM(Qwen2Config(**QWEN2["untied"]))
    published.save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(use_sliding_window=True))
    with pytest.raises(CourseError, match="use_sliding_window is True"):
        LanguageModel.from_pretrained(tmp_path)


def test_the_number_of_parameters_of_qwen2_05b():
    """The published "0.49 billion" are 494,032,768 parameters, with the tied head counted once."""
    config = DecoderConfig(151_936, 896, 24, 14, 2, 4864, rotary_base=1e6, norm_eps=1e-6, tied=True, qkv_bias=True)
    with torch.device("meta"):
        model = Decoder(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 494_032_768


def test_biases_start_at_zero():
    model = LanguageModel(DecoderConfig(11, 8, 1, 2, 1, 8, qkv_bias=True))
    biases = {name: parameter for name, parameter in model.named_parameters() if name.endswith("bias")}
    assert sorted(name.split(".")[-2] for name in biases) == ["key", "query", "value"]
    assert not any(bias.any() for bias in biases.values())


def test_both_formats_of_the_rotary_settings_are_read(tmp_path):
    published = redraw_weights(LlamaForCausalLM(LlamaConfig(**CASES["Llama 3 scaling"])), gain=0.7)
    published.save_pretrained(tmp_path)
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    for settings in ({"rope_parameters": LLAMA3}, {"rope_theta": 5000.0, "rope_scaling": scaling}):

        def change(config, settings=settings):
            for name in ("rope_parameters", "rope_theta", "rope_scaling"):
                config.pop(name, None)
            config.update(settings)

        rewrite_config(tmp_path, change)
        assert_equal_logits(LanguageModel.from_pretrained(tmp_path), published, 37)


def test_missing_settings_get_the_class_defaults(tmp_path):
    published = redraw_weights(LlamaForCausalLM(LlamaConfig(**CASES["equally many key heads"])), gain=0.7)
    published.save_pretrained(tmp_path)

    def remove_settings(config):
        for name in (
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
            "rope_parameters",
            "tie_word_embeddings",
            "hidden_act",
        ):
            config.pop(name, None)

    rewrite_config(tmp_path, remove_settings)
    assert_equal_logits(LanguageModel.from_pretrained(tmp_path), published, 37)


def test_stored_rotary_frequencies_and_a_repeated_tied_head_are_ignored(tmp_path):
    published = redraw_weights(LlamaForCausalLM(LlamaConfig(**CASES["tied"])), gain=0.7)
    published.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(5)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert_equal_logits(LanguageModel.from_pretrained(tmp_path), published, 37)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "'mistral'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "'longrope'"),
        ({"rope_parameters": LLAMA3 | {"factor": None}}, "factor is null, expected a number above 0"),
        ({"hidden_size": 31, "head_dim": None}, "31 does not divide into 3"),
    ],
)
def test_an_unsupported_model_is_an_error(change, message, tmp_path):
    redraw_weights(LlamaForCausalLM(LlamaConfig(**CASES["equally many key heads"])), gain=0.7).save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        LanguageModel.from_pretrained(tmp_path)
