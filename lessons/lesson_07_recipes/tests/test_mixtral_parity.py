"""Parity with `MixtralForCausalLM` in both directions: outputs, router losses, generated tokens, names on disk."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig as PublishedConfig
from transformers import MixtralForCausalLM

from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_arms import count_parameters
from lessons.lesson_07_recipes.model.experts_balance import load_balancing_loss
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig
from shared.errors import CourseError
from shared.testing import redraw_weights, rewrite_config
from shared.transformer import Sampling, generate

# The published class computes experts of multiples of 4 only, but for `set_experts_implementation("eager")`.
SMALL = {
    "vocab_size": 37,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
CASES = {
    "two of eight": SMALL,
    "three of five, odd sizes": SMALL
    | {"num_local_experts": 5, "num_experts_per_tok": 3, "intermediate_size": 11, "head_dim": 6},
    "one of four, tied": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 1, "tie_word_embeddings": True},
    "all of three": SMALL | {"num_local_experts": 3, "num_experts_per_tok": 3, "num_key_value_heads": 5},
    "one expert": SMALL | {"num_local_experts": 1, "num_experts_per_tok": 1, "rms_norm_eps": 0.1},
    "a window": SMALL | {"sliding_window": 4},
    # With this scaling the published class needs a head_dim.
    "YaRN": SMALL
    | {"rope_scaling": {"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8}, "head_dim": 4},
    "Llama 3 scaling": SMALL
    | {"rope_parameters": LLAMA3 | {"rope_theta": 500.0, "original_max_position_embeddings": 16}},
}
OUR_CONFIGS = {
    "two of eight": MixtralConfig(41, 20, 2, 5, 1, 12),
    "two of three, tied": MixtralConfig(41, 24, 3, 6, 2, 10, head_dim=8, tied=True, experts=3, balance_weight=0.02),
    "a window": MixtralConfig(41, 20, 2, 5, 1, 12, windows=(5, 5)),
}


def published_model(case):
    published = MixtralForCausalLM(PublishedConfig(**CASES[case]))
    published.set_experts_implementation("eager")
    return redraw_weights(published, gain=0.7)


def assert_equal_logits(model, published, vocab_size=37):
    token_ids = torch.randint(vocab_size, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids), published(token_ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_published_folder_gives_equal_logits_and_is_written_alike(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path / "published")
    model = Mixtral.from_pretrained(tmp_path / "published")
    assert_equal_logits(model, published)
    model.save_pretrained(tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("published", "ours"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("case", OUR_CONFIGS)
def test_our_folder_gives_equal_logits_in_transformers(case, tmp_path):
    model = redraw_weights(Mixtral(OUR_CONFIGS[case]), gain=0.7)
    model.save_pretrained(tmp_path)
    published, report = MixtralForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert published.config.router_aux_loss_coef == model.config.balance_weight
    published.set_experts_implementation("eager")
    assert_equal_logits(model, published.float().eval(), 41)
    again = Mixtral.from_pretrained(tmp_path)
    assert_equal_logits(again, published.float(), 41)


def test_the_names_on_disk_are_the_published_ones(tmp_path):
    Mixtral(OUR_CONFIGS["two of eight"]).save_pretrained(tmp_path)
    shapes = {name: list(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert shapes["model.layers.1.block_sparse_moe.gate.weight"] == [8, 20]
    assert shapes["model.layers.1.block_sparse_moe.experts.7.w1.weight"] == [12, 20]
    assert shapes["model.layers.1.block_sparse_moe.experts.7.w2.weight"] == [20, 12]
    assert shapes["model.layers.1.block_sparse_moe.experts.7.w3.weight"] == [12, 20]
    assert not [name for name in shapes if "mlp" in name]


def test_experts_that_were_saved_fused_are_read_too(tmp_path):
    published = published_model("two of eight")
    published.save_pretrained(tmp_path)
    fused = {name: tensor.clone() for name, tensor in published.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in fused
    save_file(fused, tmp_path / "model.safetensors")
    assert_equal_logits(Mixtral.from_pretrained(tmp_path), published)


def test_router_logits_and_the_balance_loss_equal_the_published_ones(tmp_path):
    published = published_model("three of five, odd sizes")
    published.save_pretrained(tmp_path)
    model = Mixtral.from_pretrained(tmp_path)
    token_ids, mask = torch.randint(37, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = mask[2, 2:] = 0
    expected = published(token_ids, attention_mask=mask, output_router_logits=True)
    with recorded_routings(model) as routings:
        model(token_ids, segments=mask - 1)
    for routing, logits in zip(routings, expected.router_logits, strict=True):
        counted = mask.flatten().bool()
        torch.testing.assert_close(routing.logits.flatten(0, 1)[counted], logits[counted], atol=1e-4, rtol=0)
    torch.testing.assert_close(load_balancing_loss(routings, mask.bool()), expected.aux_loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ["two of eight", "one of four, tied", "a window"])
def test_generation_equals_the_published_one_token_for_token(case, tmp_path):
    published = published_model(case)
    published.save_pretrained(tmp_path)
    model = Mixtral.from_pretrained(tmp_path)
    prompts = [torch.randint(3, 37, (length,)) for length in (7, 3)]
    sampling = Sampling(max_new_tokens=12)
    texts = generate(model, prompts, sampling)
    for prompt, text in zip(prompts, texts, strict=True):
        options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        expected = published.generate(prompt[None], eos_token_id=[-1], **options)
        assert text.tolist() == expected[0, len(prompt) :].tolist()
    uncached = generate(model, prompts, sampling, use_cache=False)
    assert [text.tolist() for text in uncached] == [text.tolist() for text in texts]


def test_a_published_config_of_version_4_is_read(tmp_path):
    """The keys of Mixtral-8x7B-v0.1's file: no `rope_parameters`, and defaults left out."""
    published = MixtralForCausalLM(PublishedConfig(**SMALL, rope_parameters={"rope_theta": 500.0}))
    published.set_experts_implementation("eager")
    redraw_weights(published, gain=0.7).save_pretrained(tmp_path)

    def to_version_4(config):
        for name in ("rope_parameters", "dtype", "head_dim", "router_jitter_noise"):
            config.pop(name, None)
        config |= {"rope_theta": 500.0, "torch_dtype": "float32", "router_aux_loss_coef": 0.02}

    rewrite_config(tmp_path, to_version_4)
    model = Mixtral.from_pretrained(tmp_path)
    assert model.config.balance_weight == 0.02
    assert_equal_logits(model, published)


def test_without_a_base_the_class_default_is_a_million(tmp_path):
    published = published_model("two of eight")
    published.save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.pop("rope_parameters"))
    model = Mixtral.from_pretrained(tmp_path)
    assert model.config.rotary_base == 1e6
    assert_equal_logits(model, published)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "'mistral'; expected mixtral"),
        ({"num_experts_per_tok": 9}, r"num_experts_per_tok\) is 9; expected 1 to 8"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0, expected a whole number of at least 1"),
        ({"num_local_experts": "8"}, "num_local_experts is '8', expected a whole number"),
        ({"num_local_experts": 1e12}, "num_local_experts is 1000000000000.0, expected a whole number"),
        ({"sliding_window": 0}, "sliding_window is 0, expected a whole number of at least 1"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "'longrope'"),
        ({"rope_scaling": {"type": "xpos"}}, "'xpos'; supported are 'linear'"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"head_dim": 5}, "head_dim is 5; rotary positions rotate pairs"),
        ({"num_key_value_heads": 2}, "num_attention_heads 5 is no multiple of num_key_value_heads 2"),
        ({"num_attention_heads": 7, "head_dim": None, "num_key_value_heads": 7}, "20 does not divide into 7 heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_an_unsupported_config_is_an_error_that_names_the_setting(change, message, tmp_path):
    Mixtral(OUR_CONFIGS["two of eight"]).save_pretrained(tmp_path)
    rewrite_config(tmp_path, lambda config: config.update(change))
    with pytest.raises(CourseError, match=message):
        Mixtral.from_pretrained(tmp_path)


def test_a_missing_expert_is_named(tmp_path):
    Mixtral(OUR_CONFIGS["two of eight"]).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.0.block_sparse_moe.experts.5.w3.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CourseError, match=r"missing: model\.layers\.0\.block_sparse_moe\.experts\.5\.w3\.weight"):
        Mixtral.from_pretrained(tmp_path)


def test_more_experts_per_token_than_experts_make_no_config():
    with pytest.raises(ValueError, match="expected 1 to 4, the number of experts"):
        MixtralConfig(41, 20, 2, 5, 1, 12, experts=4, experts_per_token=5)


@pytest.mark.parametrize(
    ("change", "name"), [({"windows": (3, 4)}, "windows"), ({"output_softcap": 3.0}, "output_softcap")]
)
def test_what_the_published_class_does_not_have_is_not_written(change, name, tmp_path):
    with pytest.raises(CourseError, match=f"no published class supports {name}"):
        Mixtral(MixtralConfig(41, 20, 2, 5, 1, 12, **change)).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{"bias": True}, {"post_norms": True}, {"activation": "relu"}, {"norm": "layer"}])
def test_blocks_of_other_models_make_no_config(change):
    with pytest.raises(ValueError, match="blocks with experts support"):
        MixtralConfig(41, 20, 2, 5, 1, 12, **change)


def test_the_number_of_parameters_of_mixtral_8x7b():
    """The published "46.7B total parameters but only uses 12.9B parameters per token"."""
    with torch.device("meta"):
        counts = count_parameters(Mixtral(MixtralConfig(32_000, 4096, 32, 32, 8, 14_336)))
    assert counts.total == 46_702_792_704 and counts.active == 12_879_925_248
