"""Read and write the `config.json` of published BLIP-2 checkpoints; weight_names.py holds the weight names.

Supported classes: `Blip2QFormerModel`, `Blip2ForImageTextRetrieval`, and `Blip2ForConditionalGeneration` with an
`OPTForCausalLM`, as in the public weights, a `LlamaForCausalLM` or a `Qwen2ForCausalLM`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import config_mapping as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_03_blip2.model.config import QFormerConfig, RetrieverConfig
from lessons.lesson_03_blip2.model.opt import is_opt, parse_opt_config, write_opt_config
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import (
    Fixed,
    Row,
    Setting,
    Unused,
    build_config,
    read_part,
    read_settings,
    require_model_type,
    require_same,
    write_settings,
)
from shared.transformer import DecoderConfig

VISION_SETTINGS: list[Row] = [
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
QFORMER_SETTINGS: list[Row] = [
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
TEXT_SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 30_522),
    Setting("max_position_embeddings", "max_text_tokens", 512),
]
# A Q-Former without text has these settings too.
NO_TEXT: list[Row] = [Unused("vocab_size"), Unused("max_position_embeddings")]
QUERIES: list[Row] = [
    Setting("num_query_tokens", "queries", 32),
    # Tokens that stand for the queries in other programs' prompts; here, the queries precede the text.
    Unused("image_token_index"),
]
PROJECTION = Setting("image_text_hidden_size", "projection_dim", 256)

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_qformer(folder: Path | str) -> QFormerConfig:
    """Return the config of a published Q-Former. Raises CourseError when the folder holds another model."""
    return _parse_qformer(pretrained.read_config(folder, "blip_2_qformer"))


def read_retriever(folder: Path | str) -> tuple[RetrieverConfig, VisionTransformerConfig]:
    """Return the configs of a published retriever and its vision encoder. Raises CourseError for another model."""
    return _parse_retriever(pretrained.read_config(folder, "blip-2"))


def read_blip2(folder: Path | str) -> tuple[VisionTransformerConfig, QFormerConfig, int, DecoderConfig]:
    """Return the configs of a published BLIP-2: vision encoder, Q-Former, its number of queries, language model.

    Raises CourseError when the folder holds another model, or a language model other than OPT, Llama and Qwen2.
    """
    return _parse_blip2(pretrained.read_config(folder, "blip-2"), folder)


def _parse_retriever(config: Mapping[str, Any]) -> tuple[RetrieverConfig, VisionTransformerConfig]:
    vision, qformer = _vision_and_qformer(config)
    if not qformer.text_input:
        raise CourseError("the Q-Former has no text input (use_qformer_text_input), which a retriever needs")
    fields = read_settings([*QUERIES, PROJECTION], config)
    fields |= read_settings(TEXT_SETTINGS, read_part(config, "qformer_config") or {}, "qformer_config")
    return build_config(RetrieverConfig, qformer=qformer, **fields), vision


def _parse_blip2(
    config: Mapping[str, Any], folder: Path | str
) -> tuple[VisionTransformerConfig, QFormerConfig, int, DecoderConfig]:
    vision, qformer = _vision_and_qformer(config)
    if qformer.text_input:
        raise CourseError(
            f"{folder} holds a Q-Former with text input (use_qformer_text_input): its weights are those of a retriever"
        )
    queries = read_settings([*QUERIES, Unused("image_text_hidden_size")], config)["queries"]
    text = {"model_type": "opt"} | (read_part(config, "text_config") or {})
    require_model_type(text, f"the text_config of {folder}", "opt", "llama", "qwen2")
    language = parse_opt_config(text) if text["model_type"] == "opt" else llama.parse_config(text, folder)
    return vision, qformer, queries, language


def _vision_and_qformer(config: Mapping[str, Any]) -> tuple[VisionTransformerConfig, QFormerConfig]:
    vision = read_settings(VISION_SETTINGS, read_part(config, "vision_config") or {}, "vision_config")
    # The Q-Former attends to the vision encoder's output, whatever width its own part of the file states.
    qformer = (read_part(config, "qformer_config") or {}) | {"encoder_hidden_size": vision["width"]}
    return build_config(VisionTransformerConfig, **vision), _parse_qformer(qformer)


def _parse_qformer(config: Mapping[str, Any]) -> QFormerConfig:
    return build_config(QFormerConfig, **read_settings([*QFORMER_SETTINGS, *NO_TEXT], config, "qformer_config"))


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_qformer(config: QFormerConfig) -> dict[str, Any]:
    """Return the published settings of a Q-Former. Raises CourseError for one that could not be read again."""
    settings = write_settings(QFORMER_SETTINGS, asdict(config))
    require_same(config, _parse_qformer(settings))
    return {"model_type": "blip_2_qformer", "architectures": ["Blip2QFormerModel"], **settings}


def write_retriever(config: RetrieverConfig, vision: VisionTransformerConfig) -> dict[str, Any]:
    """Return the published settings of a retriever. Raises CourseError for one that could not be read again."""
    settings = _write_shared(vision, config.qformer, config.queries)
    settings["qformer_config"] |= write_settings(TEXT_SETTINGS, asdict(config))
    settings |= {
        "architectures": ["Blip2ForImageTextRetrieval"],
        "image_text_hidden_size": config.projection_dim,
    }
    for written, read in zip((config, vision), _parse_retriever(settings), strict=True):
        require_same(written, read)
    return settings


def write_blip2(
    vision: VisionTransformerConfig, qformer: QFormerConfig, queries: int, language: DecoderConfig
) -> dict[str, Any]:
    """Return the published settings of a BLIP-2. Raises CourseError for one that could not be read again."""
    text = write_opt_config(language) if is_opt(language) else llama.write_config(language)
    settings = _write_shared(vision, qformer, queries) | {
        "architectures": ["Blip2ForConditionalGeneration"],
        "text_config": text,
        "use_decoder_only_language_model": True,
    }
    read_vision, read_qformer, *_ = _parse_blip2(settings, "the written folder")
    require_same(vision, read_vision)
    require_same(qformer, read_qformer)
    return settings


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
    """Return the config of a vision encoder. Raises CourseError when it is not lesson 1's ViT."""
    if isinstance(vision_encoder, VisionTransformer):
        return vision_encoder.config
    raise CourseError(
        "the vision encoder of a published BLIP-2 is a plain ViT (three channels, class token, learned positions, "
        f"nothing added); this one is a {type(vision_encoder).__name__}"
    )
