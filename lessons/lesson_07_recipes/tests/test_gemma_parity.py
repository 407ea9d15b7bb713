"""Parity with `GemmaForCausalLM` and `Gemma2ForCausalLM` in both directions, for configurations of unusual sizes."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, Gemma2ForCausalLM, GemmaConfig, GemmaForCausalLM

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.gemma import Gemma, gemma2_config, gemma_config
from lessons.lesson_07_recipes.model.gemma_config_mapping import write_gemma_config
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import DynamicScaling, Sampling, YarnScaling, generate

CLASSES = {"gemma": (GemmaConfig, GemmaForCausalLM), "gemma2": (Gemma2Config, Gemma2ForCausalLM)}
SMALL = {
    "vocab_size": 37,
    "hidden_size": 30,
    "num_hidden_layers": 4,
    "intermediate_size": 44,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GEMMA2 = SMALL | {"sliding_window": 5, "query_pre_attn_scalar": 11}
CAPS = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
YARN = {"rope_type": "yarn", "rope_theta": 50.0, "factor": 3.0, "original_max_position_embeddings": 12}
CASES = {
    "gemma": ("gemma", SMALL),
    "gemma, untied": ("gemma", SMALL | {"tie_word_embeddings": False, "num_key_value_heads": 5, "rms_norm_eps": 0.1}),
    "gemma, width that heads do not divide": ("gemma", SMALL | {"hidden_size": 31, "hidden_act": "gelu"}),
    "gemma 2": ("gemma2", GEMMA2),
    "gemma 2, low caps, untied": ("gemma2", GEMMA2 | CAPS | {"tie_word_embeddings": False}),
    "gemma 2, no caps": ("gemma2", GEMMA2 | dict.fromkeys(CAPS)),
    "gemma 2, odd layers": ("gemma2", GEMMA2 | {"layer_types": [GLOBAL, LOCAL, LOCAL, LOCAL], "rms_norm_eps": 0.1}),
    "gemma 2, no local layer": ("gemma2", GEMMA2 | {"layer_types": [GLOBAL] * 4}),
    "gemma 2, window 1": ("gemma2", GEMMA2 | {"sliding_window": 1}),
    "gemma 2, YaRN": ("gemma2", GEMMA2 | {"rope_parameters": YARN}),
}
SIZES = {"vocab_size": 37, "width": 30, "depth": 3, "heads": 5, "kv_heads": 5, "mlp_dim": 44, "head_dim": 6}
OUR_CONFIGS = {
    "gemma": gemma_config(**SIZES, rotary_base=777.0),
    "gemma, untied": gemma_config(**SIZES, tied=False, norm_eps=0.05),
    "gemma 2": gemma2_config(**SIZES, window=4, query_scalar=13, attention_softcap=1.5, output_softcap=2.5),
    "gemma 2, untied, one cap": gemma2_config(**SIZES, window=3, global_every=3, attention_softcap=None, tied=False),
    "gemma 2, YaRN": gemma2_config(**SIZES, window=3, rotary_scaling=YarnScaling(4.0, 10, 5.0, 0.5, truncate=False)),
}


def published_model(case):
    kind, settings = CASES[case]
    config_class, model_class = CLASSES[kind]
    return redraw_weights(model_class(config_class(**settings)), gain=0.3)


@torch.no_grad()
def assert_equal_logits(model, published):
    token_ids = torch.randint(37, (2, 40))
    expected = published(token_ids).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(model(token_ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_gives_equal_logits_and_is_written_back(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path / "published")
    model = Gemma.from_pretrained(tmp_path / "published")
    assert_equal_logits(model, published)
    model.save_pretrained(tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("case", OUR_CONFIGS)
def test_our_folder_gives_equal_logits_in_transformers(case, tmp_path):
    model = redraw_weights(Gemma(OUR_CONFIGS[case]), gain=0.3)
    model.save_pretrained(tmp_path)
    model_class = CLASSES[json.loads((tmp_path / "config.json").read_text())["model_type"]][1]
    published, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_equal_logits(model, published.float().eval())
    again = Gemma.from_pretrained(tmp_path)
    assert again.config == model.config
    assert_equal_logits(again, published.float().eval())


@pytest.mark.parametrize("case", ["gemma, untied", "gemma 2, low caps, untied", "gemma 2, odd layers", "gemma 2, YaRN"])
def test_generation_equals_that_of_transformers_beyond_the_window(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path)
    model, prompts = Gemma.from_pretrained(tmp_path), torch.randint(37, (3, 7))
    settings = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = published.generate(prompts, attention_mask=torch.ones_like(prompts), **settings)[:, 7:]
    assert len(expected.unique()) > 4
    for use_cache in (True, False):
        texts = generate(model, list(prompts), Sampling(30), use_cache=use_cache)
        assert torch.equal(torch.stack(texts), expected)


def test_published_configs_of_2024_are_read(tmp_path):
    """Gemma 2's first files have neither `layer_types` nor `rope_parameters`, and name the activation twice."""
    published = published_model("gemma 2")
    published.save_pretrained(tmp_path / "2")

    def to_2024(config):
        for name in ("rope_parameters", "layer_types", "dtype", "use_bidirectional_attention", "rms_norm_eps"):
            config.pop(name, None)
        activation = "gelu_pytorch_tanh"
        config |= {"rope_theta": 10_000.0, "hidden_act": activation, "hidden_activation": activation}
        config |= {"cache_implementation": "hybrid", "sliding_window_size": 5, "torch_dtype": "float32"}

    rewrite_config(tmp_path / "2", to_2024)
    assert_equal_logits(Gemma.from_pretrained(tmp_path / "2"), published)

    published = published_model("gemma")
    published.save_pretrained(tmp_path / "1")
    for activations in ({"hidden_act": "gelu"}, {"hidden_act": "gelu", "hidden_activation": None}):
        rewrite_config(tmp_path / "1", lambda config, activations=activations: config.update(activations))
        assert_equal_logits(Gemma.from_pretrained(tmp_path / "1"), published)


def test_stored_rotary_frequencies_and_a_repeated_tied_head_are_ignored(tmp_path):
    published = published_model("gemma 2")
    published.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert_equal_logits(Gemma.from_pretrained(tmp_path), published)


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("gemma", {"model_type": "gemma3_text"}, "'gemma3_text'; expected gemma or gemma2"),
        ("gemma", {"model_type": "llama"}, "'llama'"),
        ("gemma", {"hidden_act": "silu"}, "hidden_act is 'silu', expected one of gelu_pytorch_tanh, gelu"),
        ("gemma", {"hidden_activation": "gelu"}, "hidden_activation is 'gelu'"),
        ("gemma", {"head_dim": 0}, "head_dim is 0, expected a whole number of at least 1"),
        ("gemma", {"head_dim": 7}, "head_dim is 7; .* must be even"),
        ("gemma", {"head_dim": None}, "head_dim is null"),
        ("gemma", {"num_key_value_heads": 2}, "num_attention_heads 5 is no multiple of num_key_value_heads 2"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("gemma", {"attention_bias": True}, "attention_bias is True"),
        ("gemma 2", {"hidden_activation": "gelu"}, "hidden_activation is 'gelu', supported is only"),
        ("gemma 2", {"hidden_size": 31}, "hidden_size 31 does not divide into 5 heads"),
        ("gemma 2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping is 0, expected a number above 0"),
        ("gemma 2", {"attn_logit_softcapping": "50"}, "attn_logit_softcapping is '50'"),
        ("gemma 2", {"final_logit_softcapping": -30.0}, "final_logit_softcapping is -30.0, expected a number above 0"),
        ("gemma 2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("gemma 2", {"query_pre_attn_scalar": 2.5}, "query_pre_attn_scalar is 2.5"),
        ("gemma 2", {"sliding_window": 0}, "sliding_window is 0, expected a whole number of at least 1"),
        ("gemma 2", {"sliding_window": None}, "sliding_window is null"),
        ("gemma 2", {"sliding_window": True}, "sliding_window is True"),
        ("gemma 2", {"layer_types": [LOCAL]}, "layer_types has 1 entries for 4 layers"),
        ("gemma 2", {"layer_types": [LOCAL, GLOBAL, LOCAL, "chunked_attention"]}, "layer_types is .*expected one of"),
        ("gemma 2", {"layer_types": LOCAL}, "layer_types is 'sliding_attention', expected null, or a list"),
        ("gemma 2", {"rope_parameters": {LOCAL: {}, GLOBAL: {}}}, "rope_parameters has settings per type of layer"),
        ("gemma 2", {"rope_scaling": {"rope_type": "longrope"}}, "'longrope'; supported are"),
        ("gemma 2", {"rope_scaling": {"rope_type": "yarn", "factor": "4"}}, "factor is '4'"),
    ],
)
def test_an_unsupported_or_malformed_config_is_an_error_that_names_the_setting(case, change, message, tmp_path):
    kind, settings = CASES[case]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} | settings | change))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=message):
        Gemma.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (gemma_config(**SIZES, norm_offset=0.0), "norm_offset 0.0"),
        (gemma_config(**SIZES, scaled_embedding=False), "scaled_embedding False"),
        (gemma_config(**SIZES, activation="silu"), "hidden_act is 'silu'"),
        (gemma_config(**SIZES, output_softcap=30.0), "output_softcap 30.0"),
        (gemma_config(**SIZES, windows=(4, None, 4)), "windows .4, None, 4."),
        (gemma_config(**SIZES, position_offset=1), "position_offset 1"),
        (gemma2_config(**SIZES, qkv_bias=True), "qkv_bias True"),
        (gemma2_config(**SIZES | {"kv_heads": 2}), "no multiple of num_key_value_heads 2"),
        (replace(gemma2_config(**SIZES), windows=(3, 4, None)), "windows .3, 4, None."),
        (gemma2_config(**SIZES, rotary_scaling=DynamicScaling(2.0, 16)), "rotary_scaling"),
    ],
)
def test_what_no_published_class_describes_is_not_written(config, message):
    with pytest.raises(CourseError, match=message):
        write_gemma_config(config)


def test_a_gemma_is_not_written_as_a_llama(tmp_path):
    model = LanguageModel(gemma_config(**SIZES))
    with pytest.raises(CourseError, match="scaled_embedding True"):
        model.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
