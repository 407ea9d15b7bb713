"""Names of the weights in published files: tables for CLIP, SigLIP and their encoders alone."""

from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_01_vit.model.weight_names import patch_kernel
from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig
from shared.pretrained import Rearrange, Rename, Rule, Split, WeightNames, with_prefix

BLOCK: list[Rule] = [
    Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("self_attn.out_proj.{leaf}", "attention.output.{leaf}"),
    Rename("layer_norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("layer_norm2.{leaf}", "mlp_norm.{leaf}"),
    Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}"),
]
QUERY_KEY_VALUE = ("query", "key", "value")
ATTENTION_POOLING: list[Rule] = [
    Rename("head.probe", "attention_pooling.probe", Rearrange("1 1 width -> width")),
    # Published files store query, key and value as one matrix.
    Split("head.attention.in_proj_weight", [f"attention_pooling.attention.{part}.weight" for part in QUERY_KEY_VALUE]),
    Split("head.attention.in_proj_bias", [f"attention_pooling.attention.{part}.bias" for part in QUERY_KEY_VALUE]),
    Rename("head.attention.out_proj.{leaf}", "attention_pooling.attention.output.{leaf}"),
    Rename("head.layernorm.{leaf}", "attention_pooling.norm.{leaf}"),
    Rename("head.mlp.fc1.{leaf}", "attention_pooling.mlp.up.{leaf}"),
    Rename("head.mlp.fc2.{leaf}", "attention_pooling.mlp.down.{leaf}"),
]
TEXT: list[Rule] = [
    Rename("embeddings.token_embedding.weight", "embedding.weight"),
    Rename("embeddings.position_embedding.weight", "positions"),
    *with_prefix("encoder.layers.{n}.", "blocks.{n}.", BLOCK),
    Rename("final_layer_norm.{leaf}", "norm.{leaf}"),
]
# Files from before 2023 also contain the position indices 0, 1, 2, …
POSITION_IDS = ["embeddings.position_ids"]


def _vision(config: VisionTransformerConfig) -> list[Rule]:
    return [
        Rename("embeddings.class_embedding", "class_token"),
        Rename("embeddings.patch_embedding.weight", "patch_embedding.project.weight", patch_kernel(config)),
        Rename("embeddings.patch_embedding.bias", "patch_embedding.project.bias"),
        Rename("embeddings.position_embedding.weight", "positions"),
        Rename("pre_layrnorm.{leaf}", "pre_norm.{leaf}"),  # the published spelling
        *with_prefix("encoder.layers.{n}.", "blocks.{n}.", BLOCK),
        Rename("post_layernorm.{leaf}", "norm.{leaf}"),
        *ATTENTION_POOLING,
    ]


def _encoders(config: CLIPConfig | SigLIPConfig) -> list[Rule]:
    return [
        *with_prefix("vision_model.", "image_encoder.", _vision(config.image)),
        *with_prefix("text_model.", "text_encoder.", TEXT),
        Rename("logit_scale", "log_scale", Rearrange("1 -> ") if isinstance(config, SigLIPConfig) else None),
    ]


def _ignored(*prefixes: str) -> list[str]:
    return [prefix + name for prefix in prefixes for name in POSITION_IDS]


def vision_weight_names(config: VisionTransformerConfig) -> WeightNames:
    """Return the names of `CLIPVisionModel` and `SiglipVisionModel`.

    Published files have the prefix `vision_model.`, which version 5 of transformers omits.
    """
    rules = _vision(config)
    return WeightNames(with_prefix("vision_model.", "", rules), also_read=rules, ignore=_ignored("", "vision_model."))


def text_weight_names() -> WeightNames:
    """Return the names of `CLIPTextModel`, whose prefix is optional in the same way."""
    return WeightNames(with_prefix("text_model.", "", TEXT), also_read=TEXT, ignore=_ignored("", "text_model."))


def clip_weight_names(config: CLIPConfig) -> WeightNames:
    """Return the names of `CLIPModel`."""
    projections = [
        Rename("visual_projection.weight", "image_projection.weight"),
        Rename("text_projection.weight", "text_projection.weight"),
    ]
    return WeightNames([*_encoders(config), *projections], ignore=_ignored("vision_model.", "text_model."))


def siglip_weight_names(config: SigLIPConfig) -> WeightNames:
    """Return the names of `SiglipModel`."""
    projection_and_bias = [
        Rename("text_model.head.{leaf}", "text_projection.{leaf}"),
        Rename("logit_bias", "logit_bias", Rearrange("1 -> ")),
    ]
    return WeightNames([*_encoders(config), *projection_and_bias], ignore=_ignored("vision_model.", "text_model."))
