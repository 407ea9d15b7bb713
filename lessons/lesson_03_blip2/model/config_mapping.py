"""Read and write the `config.json` of published BLIP-2 checkpoints; weight_names.py holds the weight names.

Supported classes: `Blip2QFormerModel`, `Blip2ForImageTextRetrieval`, and `Blip2ForConditionalGeneration` with an
`OPTForCausalLM`, as in the public weights, or a `LlamaForCausalLM`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_03_blip2.model.config import QFormerConfig, RetrieverConfig
from lessons.lesson_03_blip2.model.opt import is_opt, opt_config_from, write_opt_config
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings
from shared.transformer import DecoderConfig

VISION_SETTINGS: list[Setting | Fixed] = [
    Setting("hidden_size", "width", 1408),
    Setting("intermediate_size", "mlp_dim", 6144),
    Setting("num_hidden_layers", "depth", 39),
    Setting("num_attention_heads", "heads", 16),
    Setting("image_size", "image_size", 224),
    Setting("patch_size", "patch_size", 14),
    Setting("layer_norm_eps", "norm_eps", 1e-6),
    Setting("qkv_bias", "qkv_bias", True),
    Fixed("hidden_act", "gelu"),
]
QFORMER_SETTINGS: list[Setting | Fixed] = [
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("encoder_hidden_size", "context_width", 1408),
    Setting("cross_attention_frequency", "cross_attention_frequency", 2),
    Setting("use_qformer_text_input", "text_input", False),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
    Fixed("hidden_act", "gelu"),
]
TEXT_SETTINGS: list[Setting | Fixed] = [
    Setting("vocab_size", "vocab_size", 30_522),
    Setting("max_position_embeddings", "max_text_tokens", 512),
]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_qformer(folder: Path | str) -> QFormerConfig:
    """Return the config of a published Q-Former. Raises CourseError when the folder holds another model."""
    return _qformer(_read(folder, "blip_2_qformer"))


def read_retriever(folder: Path | str) -> tuple[RetrieverConfig, VisionTransformerConfig]:
    """Return the configs of a published retriever and its vision encoder. Raises CourseError for another model."""
    config = _read(folder, "blip-2")
    vision, qformer = _vision_and_qformer(config)
    return RetrieverConfig(
        qformer=qformer,
        queries=config.get("num_query_tokens", 32),
        projection_dim=config.get("image_text_hidden_size", 256),
        **read_settings(TEXT_SETTINGS, config.get("qformer_config") or {}),
    ), vision


def read_blip2(folder: Path | str) -> tuple[VisionTransformerConfig, QFormerConfig, int, DecoderConfig]:
    """Return the configs of a published BLIP-2: vision encoder, Q-Former, its number of queries, language model.

    Raises CourseError when the folder holds another model, or a language model other than OPT and Llama.
    """
    config = _read(folder, "blip-2")
    vision, qformer = _vision_and_qformer(config)
    if qformer.text_input:
        raise CourseError(f"{folder} holds a Q-Former with text input: its weights are those of a retriever")
    return vision, qformer, config.get("num_query_tokens", 32), _language(config.get("text_config") or {}, folder)


def _read(folder: Path | str, model_type: str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    if config.get("model_type") != model_type:
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; expected {model_type}")
    return config


def _vision_and_qformer(config: Mapping[str, Any]) -> tuple[VisionTransformerConfig, QFormerConfig]:
    vision = VisionTransformerConfig(**read_settings(VISION_SETTINGS, config.get("vision_config") or {}))
    # The Q-Former attends to the vision encoder's output, whatever width its own part of the file states.
    qformer = dict(config.get("qformer_config") or {}) | {"encoder_hidden_size": vision.width}
    return vision, _qformer(qformer)


def _qformer(config: Mapping[str, Any]) -> QFormerConfig:
    return QFormerConfig(**read_settings(QFORMER_SETTINGS, config))


def _language(config: Mapping[str, Any], folder: Path | str) -> DecoderConfig:
    model_type = config.get("model_type", "opt")
    if model_type == "opt":
        return opt_config_from(config)
    if model_type != "llama":
        raise CourseError(f"the language model in {folder} is a {model_type!r}; supported are opt and llama")
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rotary.get("rope_type", "default") != "default":
        raise CourseError(
            f"rotary positions are scaled by {rotary['rope_type']!r} in {folder}; only unscaled ones are supported"
        )
    settings = read_settings(llama.SETTINGS, config)
    return DecoderConfig(
        **settings,
        kv_heads=config.get("num_key_value_heads") or settings["heads"],
        head_dim=config.get("head_dim"),
        rotary_base=float(rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0),
    )


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_qformer(config: QFormerConfig) -> dict[str, Any]:
    """Return the published settings of a Q-Former."""
    settings = write_settings(QFORMER_SETTINGS, asdict(config))
    return {"model_type": "blip_2_qformer", "architectures": ["Blip2QFormerModel"], **settings}


def write_retriever(config: RetrieverConfig, vision: VisionTransformerConfig) -> dict[str, Any]:
    """Return the published settings of a retriever."""
    settings = _write_shared(vision, config.qformer, config.queries)
    settings["qformer_config"] |= write_settings(TEXT_SETTINGS, asdict(config))
    return settings | {
        "architectures": ["Blip2ForImageTextRetrieval"],
        "image_text_hidden_size": config.projection_dim,
    }


def write_blip2(
    vision: VisionTransformerConfig, qformer: QFormerConfig, queries: int, language: DecoderConfig
) -> dict[str, Any]:
    """Return the published settings of a BLIP-2."""
    text = write_opt_config(language) if is_opt(language) else llama.write_config(language)
    return _write_shared(vision, qformer, queries) | {
        "architectures": ["Blip2ForConditionalGeneration"],
        "text_config": text,
        "use_decoder_only_language_model": True,
    }


def _write_shared(vision: VisionTransformerConfig, qformer: QFormerConfig, queries: int) -> dict[str, Any]:
    return {
        "model_type": "blip-2",
        "vision_config": {
            "model_type": "blip_2_vision_model",
            **write_settings(VISION_SETTINGS, asdict(vision)),
        },
        "qformer_config": {
            "model_type": "blip_2_qformer",
            **write_settings(QFORMER_SETTINGS, asdict(qformer)),
        },
        "num_query_tokens": queries,
    }


def plain_vision(vision_encoder: nn.Module) -> VisionTransformerConfig:
    """Return the config of a vision encoder that the published class can hold: lesson 1's ViT without additions.

    Raises CourseError for any other.
    """
    if isinstance(vision_encoder, VisionTransformer):
        config = vision_encoder.config
        published = ("image_size", "patch_size", "width", "depth", "heads", "mlp_dim", "qkv_bias", "norm_eps")
        if config == VisionTransformerConfig(**{name: getattr(config, name) for name in published}):
            return config
    raise CourseError(
        "the vision encoder of a published BLIP-2 is a plain ViT (three channels, class token, learned positions, "
        f"nothing added); this one is {getattr(vision_encoder, 'config', type(vision_encoder).__name__)}"
    )
