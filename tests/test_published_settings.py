"""Every setting of every published class that the course reads: another value gives equal outputs, or an error.

An ignored setting causes no error: the model loads, and its outputs are wrong.
"""

import copy
import json
from contextlib import suppress
from dataclasses import fields

import pytest
import torch
import transformers

from lessons.lesson_11_chameleon.model.vocabulary import code_name
from shared.errors import CourseError
from shared.pretrained import NO_EFFECT
from shared.testing import redraw_weights
from tests.published_families import FAMILIES

LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
TRAINED = {"original_max_position_embeddings": 6}
YARN = {"rope_type": "yarn", "factor": 2.0, **TRAINED}
THETA = {"rope_type": "default", "rope_theta": 50.0}
ROTARY = [
    {"rope_parameters": THETA},
    {"rope_parameters": THETA | LLAMA3 | TRAINED},
    {"rope_parameters": THETA | LLAMA3},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4},
    {"rope_parameters": YARN},
    {"rope_theta": 50.0},
    {"rope_theta": 50.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 50.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4},
    {"rope_theta": 50.0, "rope_scaling": LLAMA3 | TRAINED},
    {"rope_theta": 50.0, "rope_scaling": LLAMA3 | {"rope_theta": 90.0}},
    # The first wins:
    {"rope_scaling": LLAMA3 | TRAINED, "rope_parameters": THETA},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": THETA},
    {"rope_scaling": None, "rope_parameters": THETA},
    {"rope_scaling": {}, "rope_parameters": THETA},
    {"rope_theta": 70.0, "rope_parameters": THETA},
    {"rope_parameters": LLAMA3 | TRAINED, "original_max_position_embeddings": 5},
    {"rope_parameters": THETA, "original_max_position_embeddings": 5},
    {"partial_rotary_factor": 0.5},
    {"rope_parameters": THETA | {"partial_rotary_factor": 0.5}},
]
# Parts are read by the functions that read the whole; these forms differ most.
ROTARY_OF_PARTS = [
    {"rope_parameters": THETA | LLAMA3 | TRAINED},
    {"rope_theta": 50.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 4},
    {"rope_scaling": LLAMA3 | TRAINED, "rope_parameters": THETA},
    {"partial_rotary_factor": 0.5},
]
ACTIVATIONS = [{"hidden_act": name} for name in ("gelu", "quick_gelu", "relu")]
# For each setting with an effect in some class: a value or several, or changes of several settings at once.
OTHERS = {
    "vocab_size": 31,
    "hidden_size": 24,
    "embed_dim": 24,
    "intermediate_size": 14,
    "ffn_dim": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": [{"num_key_value_heads": 3}, {"num_key_value_heads": None}],
    "head_dim": 6,
    "num_local_experts": 4,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 9,
    "n_group": 3,
    "topk_group": 3,
    "routed_scaling_factor": 1.5,
    "first_k_dense_replace": [{"first_k_dense_replace": 0}, {"first_k_dense_replace": 5}],
    "router_aux_loss_coef": 0.5,
    "router_jitter_noise": 0.5,
    "q_lora_rank": [{"q_lora_rank": 5}, {"q_lora_rank": None}],
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 6,
    "v_head_dim": 5,
    "num_mtp_layers": 2,
    "max_position_embeddings": 27,
    "hidden_act": ACTIVATIONS,
    "hidden_activation": [{"hidden_activation": name} for name in ("gelu", "silu")],
    "activation_function": "gelu",
    "rms_norm_eps": 0.1,
    "query_pre_attn_scalar": 7,
    "attn_logit_softcapping": [{"attn_logit_softcapping": 0.7}, {"attn_logit_softcapping": None}],
    "final_logit_softcapping": [{"final_logit_softcapping": 0.7}, {"final_logit_softcapping": None}],
    "use_bidirectional_attention": [{"use_bidirectional_attention": True}, {"use_bidirectional_attention": False}],
    "layer_norm_eps": 0.1,
    "rope_parameters": ROTARY,
    # 14 pixels: two of them fill no patch of 3.
    "image_size": [{"image_size": 15}, {"image_size": 14}],
    "patch_size": [{"patch_size": 4}, {"patch_size": 5}],
    "num_channels": 2,
    "num_patches": [{"num_patches": 25}, {"num_patches": 24}],
    "mlp_ratio": 3,
    "layerscale_value": 0.5,
    "drop_path_rate": 0.2,
    "num_register_tokens": 2,
    "projection_dim": 7,
    "projection_size": 7,
    "pooler_output_size": 10,
    "pooler_act": "relu",
    "decoder_num_attention_heads": 4,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_intermediate_size": 22,
    "mask_ratio": 0.5,
    "sliding_window": 2,
    "max_window_layers": 1,
    "layer_types": [
        {"layer_types": ["full_attention", "full_attention"]},
        {"layer_types": ["sliding_attention"] * 2, "use_sliding_window": True, "sliding_window": 2},
    ],
    "use_sliding_window": [{"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 0}],
    "word_embed_proj_dim": 8,
    "cross_attention_frequency": 1,
    "encoder_hidden_size": 20,
    "num_query_tokens": 3,
    "image_text_hidden_size": 7,
    "image_token_index": 4,
    "video_token_index": [{"video_token_index": 4}, {"video_token_index": 28}],
    "vision_aspect_ratio": [{"vision_aspect_ratio": "anyres_max_2"}, {"vision_aspect_ratio": "anyres_max_20"}],
    "additional_vocab_size": 1,
    "alpha_type": "vector",
    "cross_layer_interval": 2,
    "resampler_n_latents": 2,
    "resampler_depth": 2,
    "resampler_n_heads": 3,
    "resampler_head_dim": 4,
    "vision_feature_layer": [{"vision_feature_layer": -1}, {"vision_feature_layer": [0, -2]}],
    "vision_feature_select_strategy": "full",
    "projector_hidden_act": "relu",
    "image_grid_pinpoints": [{"image_grid_pinpoints": [[24, 24]]}],
    "eos_token_id": [{"eos_token_id": 5}, {"eos_token_id": 2}],
    "model_parallel_size": 2,
    "vocabulary_map": [
        {"vocabulary_map": {"<image>": 2} | {code_name(code): 28 - 2 * code for code in range(13)}},
        {"vocabulary_map": {"<image>": 2} | {code_name(code): 5 + code for code in range(12)}},
    ],
    "resolution": [{"resolution": 8}, {"resolution": 7}],
    "in_channels": 2,
    "base_channels": 64,
    "channel_multiplier": [{"channel_multiplier": [2, 1]}, {"channel_multiplier": [1]}],
    "num_res_blocks": 2,
    "attn_resolutions": [{"attn_resolutions": [3]}, {"attn_resolutions": [6, 4]}, {"attn_resolutions": []}],
    "attn_type": "none",
    "latent_channels": 6,
    "num_embeddings": 11,
    "codebook_size": 11,
    "out_channels": 2,
    "temporal_downsample_factor": [{"temporal_downsample_factor": 4}, {"temporal_downsample_factor": 3}],
}
# Legal other values of the settings without an effect; they are changed all at once.
WITHOUT_EFFECT = {
    "transformers_version": "4.0.0",
    "architectures": ["Other"],
    "output_hidden_states": True,
    "return_dict": True,  # that of the class: several classes cannot run with another one
    "use_cache": False,
    "dtype": "float32",
    "chunk_size_feed_forward": 2,
    "pretraining_tp": 2,
    "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1},
    "problem_type": "multi_label_classification",
    "is_encoder_decoder": False,
    "use_decoder_only_language_model": False,
    "initializer_range": 0.5,
    "initializer_factor": 2.0,
    "init_std": 0.5,
    "logit_scale_init_value": 1.0,
    "alpha_initializer": "ones",
    "alphas_initializer_range": 0.5,
    "dropout": 0.5,
    "attention_dropout": 0.5,
    "hidden_dropout_prob": 0.5,
    "attention_probs_dropout_prob": 0.5,
    "layerdrop": 0.5,
    "freeze_text_layers": False,
    "freeze_text_module_exceptions": ["norm"],
    "freeze_lm_head": True,
    "freeze_vision_layers": False,
    "freeze_vision_module_exceptions": ["norm"],
    "bos_token_id": 5,
    "eos_token_id": 6,
    "pad_token_id": 7,
    "image_seq_length": 5,
    "encoder_stride": 5,
    "apply_layernorm": False,
    "reshape_hidden_states": False,
    "_out_features": ["stage1"],
    "_out_indices": [1],
}


def config_classes(family):
    """Return the config class of the whole, and of each walked part by its key."""
    built = getattr(transformers, family.config_class)(**copy.deepcopy(dict(family.config)))
    return {part: type(built if part is None else getattr(built, part)) for part in family.walked}


def changes_of(family_name):
    """Return (part, setting, changes) for every setting of a family's classes."""
    family, cases = FAMILIES[family_name], []
    for part, config_class in config_classes(family).items():
        unaffected = {}
        for field in fields(config_class):
            name, config = field.name, (family.config if part is None else family.config[part])
            if name in family.config and isinstance(family.config[name], dict) and name.endswith("_config"):
                continue  # a part
            if name in NO_EFFECT and not (name == "eos_token_id" and config_class is transformers.CLIPTextConfig):
                unaffected[name] = WITHOUT_EFFECT[name]
                continue
            other = OTHERS.get(name)
            if name == "rope_parameters" and part is not None:
                other = ROTARY_OF_PARTS
            if isinstance(field.default, bool):
                other = not config.get(name, field.default)
            assert other is not None, f"{config_class.__name__} has a setting {name}; name another legal value of it"
            several = isinstance(other, list) and isinstance(other[0], dict)
            changes = other if several else [{name: other}]
            # The number of key heads is no optional setting of Gemma and Mixtral, unlike that of other classes.
            cases += [
                (part, name, change) for change in changes if change.get(name, 0) is not None or field.type is not int
            ]
        cases.append((part, None, unaffected))
    return cases


def all_keys(settings):
    """Return the keys of settings and of the settings inside them."""
    nested = [value for value in settings.values() if isinstance(value, dict)]
    return [*settings, *(key for value in nested for key in value)]


def changed_config(family, part, change):
    config = copy.deepcopy(dict(family.config))
    (config if part is None else config[part]).update(copy.deepcopy(change))
    return config


def write_config(family, config, folder):
    """Write a `config.json` without weights."""
    folder.mkdir(exist_ok=True)
    model_type = getattr(transformers, family.config_class).model_type
    (folder / "config.json").write_text(json.dumps({"model_type": model_type} | config))


def save(family, config, folder):
    """Write the published model of a config, with exactly this config, and return the model."""
    torch.manual_seed(0)
    published = redraw_weights(family.build(copy.deepcopy(config)), buffers=True)
    published.save_pretrained(folder)
    write_config(family, config, folder)
    return published


def load_or_refuse(family, folder, change):
    """Return our model of a folder, or None if our loader refuses a changed setting, by its name."""
    try:
        return family.load(folder)
    except CourseError as error:
        if "contains no weights" in str(error):
            raise
        assert any(key in str(error) for key in all_keys(change)), f"the error does not name the setting: {error}"
        return None


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_no_setting_is_ignored(name, tmp_path):
    family, refused, equal = FAMILIES[name], [], []
    for number, (part, setting, change) in enumerate([(None, None, {}), *changes_of(name)]):
        config, folder = changed_config(family, part, change), tmp_path / str(number)
        try:
            write_config(family, config, folder)
            # Most refusals need no model, but the value must be one that the published class accepts.
            family.build_config(copy.deepcopy(config))
            with suppress(CourseError):
                if load_or_refuse(family, folder, change) is None:
                    refused.append(setting)
                    continue
            published = save(family, config, folder)
            model = load_or_refuse(family, folder, change)
            if model is None:
                refused.append(setting)
                continue
            for expected, actual in zip(*family.outputs(published, model), strict=True):
                assert expected.abs().max() > 1e-3
                torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
            equal.append(setting)
        except Exception as error:
            raise AssertionError(f"{name}, {part or 'config'}: {change}") from error
    assert None in equal and None not in refused  # the plain config, and all settings without an effect
    assert len(equal) > len(refused)
