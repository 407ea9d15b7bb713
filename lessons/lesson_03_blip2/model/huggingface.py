"""The settings of published BLIP-2 checkpoints, `config.json`, in both directions; the weights' names are in huggingface_names.py.

Read and written: `Blip2QFormerModel`, `Blip2ForImageTextRetrieval`, `Blip2ForConditionalGeneration` (which speaks through
`OPTForCausalLM`, as the public weights do, or `LlamaForCausalLM`), and `OPTForCausalLM` by itself.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_03_blip2.model.config import QFormerConfig, RetrieverConfig, opt_config
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Setting, read_settings, write_settings
from shared.transformer import DecoderConfig

VISION_SETTINGS = [
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
QFORMER_SETTINGS = [
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_dim", 3072),
    Setting("encoder_hidden_size", "context_width", 1408),
    Setting("cross_attention_frequency", "cross_every", 2),
    Setting("use_qformer_text_input", "reads_text", False),
    Setting("layer_norm_eps", "norm_eps", 1e-12),
    Fixed("hidden_act", "gelu"),
]
WORDS_SETTINGS = [
    Setting("vocab_size", "vocab_size", 30_522),
    Setting("max_position_embeddings", "max_text", 512),
]
OPT_SETTINGS = [
    Setting("vocab_size", "vocab_size", 50_272),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("ffn_dim", "mlp_dim", 3072),
    Setting("max_position_embeddings", "max_positions", 2048),
    Fixed("activation_function", "relu"),
    # OPT-350M alone puts its norms behind the branches and its words into a narrower space.
    Fixed("do_layer_norm_before", True),
    Fixed("_remove_final_layer_norm", False),
    Fixed("enable_bias", True),
    Fixed("layer_norm_elementwise_affine", True),
    Fixed("tie_word_embeddings", True),
]

# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_qformer(folder: Path | str) -> QFormerConfig:
    """Our config of a published Q-Former. Raises CourseError when the folder holds another kind of model."""
    return _qformer(_read(folder, "blip_2_qformer"))


def read_opt(folder: Path | str) -> DecoderConfig:
    """Our config of a published OPT. Raises CourseError when the folder holds another kind of model."""
    return _opt(_read(folder, "opt"))


def read_retriever(folder: Path | str) -> tuple[RetrieverConfig, VisionTransformerConfig]:
    """Our configs of a published retriever and its eye. Raises CourseError when the folder holds another kind of model."""
    config = _read(folder, "blip-2")
    vision, qformer = _eye_and_bridge(config)
    words = read_settings(WORDS_SETTINGS, config.get("qformer_config") or {})
    return RetrieverConfig(
        qformer=qformer,
        queries=config.get("num_query_tokens", 32),
        shared_width=config.get("image_text_hidden_size", 256),
        **words,
    ), vision


def read_blip2(folder: Path | str) -> tuple[VisionTransformerConfig, QFormerConfig, int, DecoderConfig]:
    """Our configs of a published BLIP-2 that writes, and how many queries it has.

    Raises CourseError when the folder holds another kind of model, or its language model is neither OPT nor Llama.
    """
    config = _read(folder, "blip-2")
    vision, qformer = _eye_and_bridge(config)
    if qformer.reads_text:
        raise CourseError(f"{folder} holds a Q-Former that reads text: its weights are those of a retriever")
    return vision, qformer, config.get("num_query_tokens", 32), _language(config.get("text_config") or {}, folder)


def _read(folder: Path | str, kind: str) -> dict[str, Any]:
    config = pretrained.read_config(folder)
    if config.get("model_type") != kind:
        raise CourseError(f"{folder} holds a model of type {config.get('model_type')!r}; this reads {kind}")
    return config


def _eye_and_bridge(config: Mapping[str, Any]) -> tuple[VisionTransformerConfig, QFormerConfig]:
    vision = VisionTransformerConfig(**read_settings(VISION_SETTINGS, config.get("vision_config") or {}))
    # What the Q-Former looks at is the eye's output, whatever its own part of the file says.
    qformer = dict(config.get("qformer_config") or {}) | {"encoder_hidden_size": vision.width}
    return vision, _qformer(qformer)


def _qformer(config: Mapping[str, Any]) -> QFormerConfig:
    return QFormerConfig(**read_settings(QFORMER_SETTINGS, config))


def _opt(config: Mapping[str, Any]) -> DecoderConfig:
    ours = read_settings(OPT_SETTINGS, config)
    if config.get("word_embed_proj_dim") not in (None, ours["width"]):
        raise CourseError(
            f"word_embed_proj_dim {config['word_embed_proj_dim']} differs from hidden_size {ours['width']}, as in OPT-350M; "
            "this reads the other sizes"
        )
    return opt_config(**ours)


def _language(config: Mapping[str, Any], folder: Path | str) -> DecoderConfig:
    kind = config.get("model_type", "opt")
    if kind == "opt":
        return _opt(config)
    if kind != "llama":
        raise CourseError(f"the language model in {folder} is a {kind!r}; this reads opt and llama")
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rotary.get("rope_type", "default") != "default":
        raise CourseError(f"rotary positions are scaled by {rotary['rope_type']!r} in {folder}; this reads plain ones")
    ours = read_settings(llama.SETTINGS, config)
    return DecoderConfig(
        **ours,
        kv_heads=config.get("num_key_value_heads") or ours["heads"],
        head_dim=config.get("head_dim"),
        rotary_base=float(rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0),
    )


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_qformer(config: QFormerConfig) -> dict[str, Any]:
    """The published settings of our Q-Former."""
    written = write_settings(QFORMER_SETTINGS, asdict(config))
    return {"model_type": "blip_2_qformer", "architectures": ["Blip2QFormerModel"], **written}


def write_opt(config: DecoderConfig) -> dict[str, Any]:
    """The published settings of our OPT."""
    written = write_settings(OPT_SETTINGS, asdict(config))
    return {"model_type": "opt", "architectures": ["OPTForCausalLM"], "word_embed_proj_dim": config.width, **written}


def write_retriever(config: RetrieverConfig, vision: VisionTransformerConfig) -> dict[str, Any]:
    """The published settings of our retriever."""
    written = _write_shared(vision, config.qformer, config.queries)
    written["qformer_config"] |= write_settings(WORDS_SETTINGS, asdict(config))
    return written | {
        "architectures": ["Blip2ForImageTextRetrieval"],
        "image_text_hidden_size": config.shared_width,
    }


def write_blip2(
    vision: VisionTransformerConfig, bridge: nn.Module, language: DecoderConfig, image_token: int | None
) -> dict[str, Any]:
    """The published settings of our BLIP-2 that writes. Raises CourseError when its bridge is no Q-Former."""
    qformer = getattr(bridge, "qformer", None)
    if qformer is None:
        raise CourseError(f"a published BLIP-2 has a Q-Former; this one's bridge is a {type(bridge).__name__}")
    text = write_opt(language) if language.positions == "learned" else llama.write_config(language)
    return _write_shared(vision, qformer.config, len(bridge.queries)) | {
        "architectures": ["Blip2ForConditionalGeneration"],
        "text_config": text,
        "image_token_index": image_token,
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


def plain_vision(vision: nn.Module) -> VisionTransformerConfig:
    """The config of an eye that is BLIP-2's own: lesson 1's ViT with nothing added.

    Raises CourseError for any other, which no published class could hold.
    """
    if isinstance(vision, VisionTransformer):
        config = vision.config
        kept = ("image_size", "patch_size", "width", "depth", "heads", "mlp_dim", "qkv_bias", "norm_eps")
        if config == VisionTransformerConfig(**{name: getattr(config, name) for name in kept}):
            return config
    raise CourseError(
        "a published BLIP-2 looks through a plain ViT (three channels, class token, learned positions, nothing added); "
        f"this one looks through {getattr(vision, 'config', type(vision).__name__)}"
    )
