"""What published files call each weight: the tables of CLIP, SigLIP and their towers."""

from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig, VisionTowerConfig
from shared.pretrained import Rearrange, Rename, Rule, Split, WeightNames, with_prefix

BLOCK = [
    Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("self_attn.out_proj.{leaf}", "attention.output.{leaf}"),
    Rename("layer_norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("layer_norm2.{leaf}", "mlp_norm.{leaf}"),
    Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}"),
]
ATTENTION_POOLING = [
    Rename("head.probe", "attention_pooling.probe", Rearrange("1 1 width -> width")),
    # On disk the matrices of query, key and value are one.
    *(
        Split(f"head.attention.in_proj_{leaf}", [f"attention_pooling.attention.{part}.{leaf}" for part in ("query", "key", "value")])
        for leaf in ("weight", "bias")
    ),
    Rename("head.attention.out_proj.{leaf}", "attention_pooling.attention.output.{leaf}"),
    Rename("head.layernorm.{leaf}", "attention_pooling.norm.{leaf}"),
    Rename("head.mlp.fc1.{leaf}", "attention_pooling.mlp.up.{leaf}"),
    Rename("head.mlp.fc2.{leaf}", "attention_pooling.mlp.down.{leaf}"),
]  # fmt: skip
TEXT = [
    Rename("embeddings.token_embedding.weight", "embedding.weight"),
    Rename("embeddings.position_embedding.weight", "positions"),
    *with_prefix("encoder.layers.{n}.", "blocks.{n}.", BLOCK),
    Rename("final_layer_norm.{leaf}", "norm.{leaf}"),
]
# Files of before 2023 carry the numbers 0, 1, 2, … of the positions along.
POSITION_IDS = ["embeddings.position_ids"]


def _vision(config: VisionTowerConfig) -> list[Rule]:
    kernel = Rearrange(
        "width channels row column -> width (row column channels)",
        channels=config.channels,
        row=config.patch_size,
        column=config.patch_size,
    )
    return [
        Rename("embeddings.class_embedding", "class_token"),
        Rename("embeddings.patch_embedding.weight", "patch_embedding.project.weight", kernel),
        Rename("embeddings.patch_embedding.bias", "patch_embedding.project.bias"),
        Rename("embeddings.position_embedding.weight", "positions"),
        Rename("pre_layrnorm.{leaf}", "pre_norm.{leaf}"),  # so spelled, for ever
        *with_prefix("encoder.layers.{n}.", "blocks.{n}.", BLOCK),
        Rename("post_layernorm.{leaf}", "norm.{leaf}"),
        *ATTENTION_POOLING,
    ]


def _towers(config: CLIPConfig | SigLIPConfig) -> list[Rule]:
    return [
        *with_prefix("vision_model.", "image_tower.", _vision(config.image)),
        *with_prefix("text_model.", "text_tower.", TEXT),
        Rename("logit_scale", "log_scale", Rearrange("1 -> ") if isinstance(config, SigLIPConfig) else None),
    ]


def _ignored(*prefixes: str) -> list[str]:
    return [prefix + name for prefix in prefixes for name in POSITION_IDS]


def vision_table(config: VisionTowerConfig) -> WeightNames:
    """`CLIPVisionModel` or `SiglipVisionModel`: published ones carry the prefix that version 5 of transformers leaves out."""
    rules = _vision(config)
    return WeightNames(with_prefix("vision_model.", "", rules), also_read=rules, ignore=_ignored("", "vision_model."))


def text_table() -> WeightNames:
    """`CLIPTextModel`, likewise."""
    return WeightNames(with_prefix("text_model.", "", TEXT), also_read=TEXT, ignore=_ignored("", "text_model."))


def clip_table(config: CLIPConfig) -> WeightNames:
    """`CLIPModel`."""
    projections = [
        Rename("visual_projection.weight", "image_projection.weight"),
        Rename("text_projection.weight", "text_projection.weight"),
    ]
    return WeightNames([*_towers(config), *projections], ignore=_ignored("vision_model.", "text_model."))


def siglip_table(config: SigLIPConfig) -> WeightNames:
    """`SiglipModel`."""
    outside = [
        Rename("text_model.head.{leaf}", "text_projection.{leaf}"),
        Rename("logit_bias", "logit_bias", Rearrange("1 -> ")),
    ]
    return WeightNames([*_towers(config), *outside], ignore=_ignored("vision_model.", "text_model."))
