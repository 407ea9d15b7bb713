"""What published BLIP-2 files call each weight: the eye, the Q-Former, and the models around them."""

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformerConfig
from shared.pretrained import Rearrange, Rename, Rule, Split, Tie, WeightNames, with_prefix
from shared.transformer import DecoderConfig

VISION_BLOCK = [
    # One matrix for queries, keys and values; the same file order as ours.
    Split("self_attn.qkv.{leaf}", [f"attention.{part}.{{leaf}}" for part in ("query", "key", "value")]),
    Rename("self_attn.projection.{leaf}", "attention.output.{leaf}"),
    Rename("layer_norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("layer_norm2.{leaf}", "mlp_norm.{leaf}"),
    Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}"),
]
QFORMER_BLOCK = [
    rule
    for theirs, ours in (("attention", "attention"), ("crossattention", "cross_attention"))
    for rule in (
        Rename(f"{theirs}.attention.query.{{leaf}}", f"{ours}.query.{{leaf}}"),
        Rename(f"{theirs}.attention.key.{{leaf}}", f"{ours}.key.{{leaf}}"),
        Rename(f"{theirs}.attention.value.{{leaf}}", f"{ours}.value.{{leaf}}"),
        Rename(f"{theirs}.output.dense.{{leaf}}", f"{ours}.output.{{leaf}}"),
        Rename(f"{theirs}.output.LayerNorm.{{leaf}}", f"{ours}_norm.{{leaf}}"),
    )
] + [
    rule
    for theirs, ours in (("_query", "mlp"), ("", "text_mlp"))
    for rule in (
        Rename(f"intermediate{theirs}.dense.{{leaf}}", f"{ours}.up.{{leaf}}"),
        Rename(f"output{theirs}.dense.{{leaf}}", f"{ours}.down.{{leaf}}"),
        Rename(f"output{theirs}.LayerNorm.{{leaf}}", f"{ours}_norm.{{leaf}}"),
    )
]
QFORMER = [
    Rename("layernorm.{leaf}", "norm.{leaf}"),
    *with_prefix("encoder.layer.{n}.", "blocks.{n}.", QFORMER_BLOCK),
]
OPT_DECODER = [
    Rename("embed_tokens.weight", "embedding.weight"),
    Rename("embed_positions.weight", "position_embedding.weight"),
    Rename("final_layer_norm.{leaf}", "norm.{leaf}"),
    *with_prefix(
        "layers.{n}.",
        "blocks.{n}.",
        [
            Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
            Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
            Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
            Rename("self_attn.out_proj.{leaf}", "attention.output.{leaf}"),
            Rename("self_attn_layer_norm.{leaf}", "attention_norm.{leaf}"),
            Rename("fc1.{leaf}", "mlp.up.{leaf}"),
            Rename("fc2.{leaf}", "mlp.down.{leaf}"),
            Rename("final_layer_norm.{leaf}", "mlp_norm.{leaf}"),
        ],
    ),
]
QUERIES = Rearrange("1 queries width -> queries width")


def qformer_table() -> WeightNames:
    """`Blip2QFormerModel`."""
    return WeightNames(QFORMER)


def opt_table() -> WeightNames:
    """`OPTForCausalLM`; its oldest files lack the first part of each name."""
    return WeightNames(
        with_prefix("model.decoder.", "", OPT_DECODER),
        also_read=with_prefix("decoder.", "", OPT_DECODER),
        ties=[Tie("lm_head.weight", "model.decoder.embed_tokens.weight")],
    )


def retriever_table(vision: VisionTransformerConfig) -> WeightNames:
    """`Blip2ForImageTextRetrieval`."""
    return WeightNames(
        [
            *_vision(vision),
            Rename("query_tokens", "queries", QUERIES),
            *with_prefix("qformer.", "qformer.", QFORMER),
            Rename("embeddings.word_embeddings.weight", "words.weight"),
            Rename("embeddings.position_embeddings.weight", "positions.weight"),
            Rename("vision_projection.{leaf}", "image_projection.{leaf}"),
            Rename("text_projection.{leaf}", "text_projection.{leaf}"),
            Rename("itm_head.{leaf}", "match.{leaf}"),
        ],
        # The number of each place, which files of version 4 hold.
        ignore=["embeddings.position_ids"],
    )


def blip2_table(vision: VisionTransformerConfig, language: DecoderConfig) -> WeightNames:
    """`Blip2ForConditionalGeneration` with the language model of this config."""
    speaks = opt_table() if language.positions == "learned" else llama.weight_names(language)
    prefix = "language_model."
    return WeightNames(
        [
            *_vision(vision),
            Rename("query_tokens", "bridge.queries", QUERIES),
            *with_prefix("qformer.", "bridge.qformer.", QFORMER),
            Rename("language_projection.{leaf}", "bridge.projection.{leaf}"),
            *with_prefix(prefix, "language.", speaks.rules),
        ],
        ties=[Tie(prefix + tie.published, prefix + tie.to) for tie in speaks.ties],
        ignore=[prefix + name for name in speaks.ignore],
    )


def _vision(config: VisionTransformerConfig) -> list[Rule]:
    kernel = Rearrange(
        "width channels row column -> width (row column channels)",
        channels=config.channels,
        row=config.patch_size,
        column=config.patch_size,
    )
    return with_prefix(
        "vision_model.",
        "vision.",
        [
            Rename("embeddings.class_embedding", "class_token", Rearrange("1 1 width -> width")),
            Rename("embeddings.position_embedding", "positions", Rearrange("1 tokens width -> tokens width")),
            Rename("embeddings.patch_embedding.weight", "patch_embedding.project.weight", kernel),
            Rename("embeddings.patch_embedding.bias", "patch_embedding.project.bias"),
            *with_prefix("encoder.layers.{n}.", "blocks.{n}.", VISION_BLOCK),
            Rename("post_layernorm.{leaf}", "norm.{leaf}"),
        ],
    )
