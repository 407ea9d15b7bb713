"""Parity with `DeepseekV3ForCausalLM` in both directions: outputs, routing, generated tokens, names on disk."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from lessons.lesson_07_recipes.model.deepseek import PREDICTION_WEIGHTS, DeepSeekV3
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_arms import count_parameters
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling, YarnScaling, generate

SMALL = {
    "vocab_size": 37,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 14,
    "moe_intermediate_size": 7,
    "q_lora_rank": 9,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 5,
    "qk_rope_head_dim": 4,
    "v_head_dim": 3,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 64,
}
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 8, "beta_fast": 32, "beta_slow": 1}
CASES = {
    "as published": SMALL,
    "as published, with its rotary scaling": SMALL
    | {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, "max_position_embeddings": 320},
    "a magnitude of the rotated elements alone": SMALL | {"rope_scaling": YARN},
    "two magnitudes": SMALL | {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 1.3}},
    "Llama 3 scaling": SMALL
    | {
        "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0},
        "max_position_embeddings": 8,
    },
    "queries without a latent": SMALL | {"q_lora_rank": None},
    "biases": SMALL | {"attention_bias": True, "tie_word_embeddings": True},
    "biases, queries without a latent": SMALL | {"attention_bias": True, "q_lora_rank": None},
    "pairs of halves": SMALL | {"rope_interleave": False, "qk_rope_head_dim": 6},
    "one group": SMALL | {"n_group": 1, "topk_group": 1, "n_shared_experts": 2, "routed_scaling_factor": 1.3},
    "weights as they are": SMALL | {"norm_topk_prob": False, "rms_norm_eps": 0.1},
    "dense layers only": SMALL | {"first_k_dense_replace": 3},
    "experts in every layer": SMALL | {"first_k_dense_replace": 0, "n_group": 6, "topk_group": 5},
    "another rotary base": SMALL | {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
}
LATENT = {"head_dim": 5, "rotary_dim": 4, "value_dim": 3, "latent_dim": 6, "query_latent_dim": 9}
EXPERTS = {
    "dense_layers": 1,
    "experts": 12,
    "experts_per_token": 3,
    "expert_dim": 7,
    "groups": 4,
    "groups_per_token": 2,
}
CONFIG = DeepSeekConfig(41, 20, 2, 3, 3, 14, **LATENT, **EXPERTS)
OUR_CONFIGS = {
    "as published": CONFIG,
    "other choices": DeepSeekConfig(
        *(41, 20, 2, 3, 3, 14),
        **LATENT | {"query_latent_dim": None, "attention_bias": True, "interleaved": False},
        **EXPERTS | {"normalize_weights": False, "routing_scale": 1.0, "shared_experts": 2},
        tied=True,
        rotary_base=300.0,
        rotary_scaling=YarnScaling(4.0, 8, mscale=0.7, mscale_all_dim=1.3),
        max_positions=32,
    ),
}


def published_model(case):
    published = DeepseekV3ForCausalLM(DeepseekV3Config(**CASES[case]))
    published.set_experts_implementation("eager")
    return redraw_weights(published, gain=0.7, buffers=True)


def assert_equal_logits(model, published, vocab_size=37):
    token_ids = torch.randint(vocab_size, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), published(token_ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_gives_equal_logits_and_is_written_alike(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path / "published")
    model = DeepSeekV3.from_pretrained(tmp_path / "published")
    assert_equal_logits(model, published)
    model.absorb(True)
    assert_equal_logits(model, published)
    model.save_pretrained(tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("case", OUR_CONFIGS)
def test_our_folder_gives_equal_logits_in_transformers(case, tmp_path):
    model = redraw_weights(DeepSeekV3(OUR_CONFIGS[case]), gain=0.7, buffers=True)
    model.save_pretrained(tmp_path)
    published, report = DeepseekV3ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert published.config.num_nextn_predict_layers == 0
    published.set_experts_implementation("eager")
    assert_equal_logits(model, published.float().eval(), 41)
    again = DeepSeekV3.from_pretrained(tmp_path)
    assert again.config == model.config
    assert_equal_logits(again, published.float(), 41)


def test_the_routers_choose_and_weight_the_same_experts(tmp_path):
    published = published_model("as published")
    published.save_pretrained(tmp_path)
    model = DeepSeekV3.from_pretrained(tmp_path)
    token_ids, choices = torch.randint(37, (2, 9)), []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _, inputs, output: choices.append(output))
        for layer in published.model.layers[1:]
    ]
    published(token_ids)
    with recorded_routings(model) as routings:
        model(token_ids)
    assert len(routings) == len(hooks) == 2
    for routing, (logits, weights, indices) in zip(routings, choices, strict=True):
        torch.testing.assert_close(routing.logits.flatten(0, 1), logits, atol=1e-4, rtol=0)
        actual, expected = (
            torch.zeros(18, 12).scatter(1, chosen, weight)
            for chosen, weight in ((routing.indices.flatten(0, 1), routing.weights.flatten(0, 1)), (indices, weights))
        )
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["as published", "two magnitudes", "queries without a latent", "pairs of halves"])
def test_generation_equals_the_published_one_token_for_token(case, tmp_path):
    """With our cache of latents: expanded and absorbed, and a batch of prompts of different lengths."""
    published = published_model(case)
    published.save_pretrained(tmp_path)
    model = DeepSeekV3.from_pretrained(tmp_path)
    prompts = [torch.randint(3, 37, (length,)) for length in (7, 3)]
    expected = []
    for prompt in prompts:
        options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        generated = published.generate(prompt[None], eos_token_id=[-1], **options)
        expected.append(generated[0, len(prompt) :].tolist())
    for absorbed in (None, True, False):
        model.absorb(absorbed)
        texts = generate(model, prompts, Sampling(max_new_tokens=12))
        assert [text.tolist() for text in texts] == expected
    uncached = generate(model, prompts, Sampling(max_new_tokens=12), use_cache=False)
    assert [text.tolist() for text in uncached] == expected


# ── Published files ───────────────────────────────────────────────────────────────────────────────────────────────────


def save_with_prediction_layer(folder, depth=3, *, complete=True):
    """A folder as DeepSeek publishes it: behind the last layer stands one for multi-token prediction."""
    published = published_model("as published")
    published.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    block = {name: tensor for name, tensor in weights.items() if name.startswith("model.layers.2.")}
    weights |= {name.replace(".2.", f".{depth}.", 1): tensor.clone() for name, tensor in block.items()}
    if complete:
        weights |= {f"model.layers.{depth}.{name}": torch.ones(3) for name in PREDICTION_WEIGHTS}
    save_file(weights, folder / "model.safetensors")
    return published


def test_layers_for_multi_token_prediction_are_ignored(tmp_path):
    published = save_with_prediction_layer(tmp_path)
    assert_equal_logits(DeepSeekV3.from_pretrained(tmp_path), published)


def test_any_other_weight_of_such_a_layer_is_an_error(tmp_path):
    save_with_prediction_layer(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"model.layers.3.other.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"surplus: model\.layers\.3\.other\.weight"):
        DeepSeekV3.from_pretrained(tmp_path)


def test_a_layer_beyond_the_depth_that_predicts_no_further_token_is_an_error(tmp_path):
    save_with_prediction_layer(tmp_path, complete=False)
    with pytest.raises(CourseError, match=r"surplus: model\.layers\.3\.input_layernorm\.weight"):
        DeepSeekV3.from_pretrained(tmp_path)


def test_a_published_config_of_version_4_is_read(tmp_path):
    """The keys of DeepSeek-V3's file, but for its quantization; tests above have its rotary scaling."""
    published = save_with_prediction_layer(tmp_path)

    def to_version_4(config):
        for name in ("rope_parameters", "dtype", "head_dim", "qk_head_dim", "rope_interleave", "output_router_logits"):
            config.pop(name, None)
        config |= {"rope_theta": 10_000.0, "torch_dtype": "float32", "num_nextn_predict_layers": 1, "ep_size": 1}
        config |= {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "seq_aux": True, "aux_loss_alpha": 0.001}
        config |= {"moe_layer_freq": 1, "pretraining_tp": 1, "rope_scaling": None}

    rewrite_config(tmp_path, to_version_4)
    assert_equal_logits(DeepSeekV3.from_pretrained(tmp_path), published)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deepseek_v2"}, "'deepseek_v2'; expected deepseek_v3"),
        ({"n_group": 5}, "12 experts do not divide into 5 groups"),
        ({"n_group": 12}, "12 groups of at least 2 experts"),
        ({"n_group": None}, "n_group is null"),
        ({"topk_group": 5}, "choose from 5 of 4 groups"),
        ({"num_experts_per_tok": 7}, "7 experts can't be chosen per token from 2 groups with 6 experts"),
        ({"num_experts_per_tok": 13}, "13 experts can't be chosen"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
        ({"n_shared_experts": 0}, "n_shared_experts is 0"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1, supported is only 3"),
        ({"head_dim": 8}, "head_dim is 8, supported is only 4"),
        ({"qk_head_dim": 8}, "qk_head_dim is 8, supported is only 9"),
        ({"qk_nope_head_dim": 0}, "qk_nope_head_dim is 0"),
        ({"qk_rope_head_dim": 0}, "qk_rope_head_dim is 0"),
        ({"qk_rope_head_dim": 3, "head_dim": None, "qk_head_dim": None}, r"qk_rope_head_dim\) is 3; rotary"),
        ({"v_head_dim": 0}, "v_head_dim is 0"),
        ({"kv_lora_rank": None}, "kv_lora_rank is null"),
        ({"q_lora_rank": "9"}, "q_lora_rank is '9'"),
        ({"norm_topk_prob": 1}, "norm_topk_prob is 1, expected true or false"),
        ({"routed_scaling_factor": -1}, "routed_scaling_factor is -1"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'longrope'; supported are 'linear'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "mscale_all_dim": 1.0}}, "rope_scaling has mscale_all_dim"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax', supported is only 'sigmoid'"),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_an_unsupported_config_is_an_error_that_names_the_setting(change, message, tmp_path):
    DeepSeekV3(CONFIG).save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        DeepSeekV3.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 1}, "1 key heads for 3 query heads"),
        ({"head_dim": None}, "head_dim is None"),
        ({"rotary_dim": 5}, "rotary positions rotate pairs"),
        ({"groups": 7}, "do not divide into 7 groups"),
        ({"bias": True}, "bias is True; blocks with experts support False only"),
        ({"attention_softcap": 50.0}, "attention_softcap is 50.0"),
    ],
)
def test_sizes_that_exclude_each_other_make_no_config(change, message):
    sizes = {"vocab_size": 41, "width": 20, "depth": 2, "heads": 3, "kv_heads": 3, "mlp_dim": 14}
    with pytest.raises(ValueError, match=message):
        DeepSeekConfig(**sizes | LATENT | EXPERTS | change)


def test_a_model_without_shared_experts_is_not_written(tmp_path):
    model = DeepSeekV3(DeepSeekConfig(41, 20, 2, 3, 3, 14, **LATENT, **EXPERTS, shared_experts=0))
    assert model.blocks[1].mlp.shared is None
    with pytest.raises(CourseError, match="n_shared_experts is 0"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_number_of_parameters_of_deepseek_v3():
    """The published 671B in total, of which 36.6B are active per token with the input embedding left out."""
    with torch.device("meta"):
        counts = count_parameters(DeepSeekV3(DeepSeekConfig(129_280, 7168, 61, 128, 128, 18_432)))
    assert counts.total == 671_026_404_352
    assert counts.active - 129_280 * 7168 == 36_625_603_584
