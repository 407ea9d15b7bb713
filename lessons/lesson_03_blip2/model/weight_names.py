"""The names of the weights in published BLIP-2 checkpoints: vision encoder, Q-Former, and the models around them."""

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_01_vit.model.weight_names import patch_kernel
from lessons.lesson_03_blip2.model.opt import is_opt, opt_weight_names
from shared.pretrained import Rearrange, Rename, Rule, Split, Tie, WeightNames, with_prefix
from shared.transformer import DecoderConfig

VISION_BLOCK: list[Rule] = [
    # Published as one matrix for queries, keys and values.
    Split("self_attn.qkv.{leaf}", [f"attention.{part}.{{leaf}}" for part in ("query", "key", "value")]),
    Rename("self_attn.projection.{leaf}", "attention.output.{leaf}"),
    Rename("layer_norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("layer_norm2.{leaf}", "mlp_norm.{leaf}"),
    Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}"),
]
QFORMER_ATTENTION = [
    rule
    for public, name in (("attention", "attention"), ("crossattention", "cross_attention"))
    for rule in (
        Rename(f"{public}.attention.query.{{leaf}}", f"{name}.query.{{leaf}}"),
        Rename(f"{public}.attention.key.{{leaf}}", f"{name}.key.{{leaf}}"),
        Rename(f"{public}.attention.value.{{leaf}}", f"{name}.value.{{leaf}}"),
        Rename(f"{public}.output.dense.{{leaf}}", f"{name}.output.{{leaf}}"),
        Rename(f"{public}.output.LayerNorm.{{leaf}}", f"{name}_norm.{{leaf}}"),
    )
]
QFORMER_MLP = [
    rule
    for public, name in (("_query", "mlp"), ("", "text_mlp"))
    for rule in (
        Rename(f"intermediate{public}.dense.{{leaf}}", f"{name}.up.{{leaf}}"),
        Rename(f"output{public}.dense.{{leaf}}", f"{name}.down.{{leaf}}"),
        Rename(f"output{public}.LayerNorm.{{leaf}}", f"{name}_norm.{{leaf}}"),
    )
]
QFORMER: list[Rule] = [
    Rename("layernorm.{leaf}", "norm.{leaf}"),
    *with_prefix("encoder.layer.{n}.", "blocks.{n}.", [*QFORMER_ATTENTION, *QFORMER_MLP]),
]
QUERIES = Rearrange("1 queries width -> queries width")


def qformer_weight_names() -> WeightNames:
    """Return the weight names of `Blip2QFormerModel`."""
    return WeightNames(QFORMER)


def retriever_weight_names(vision: VisionTransformerConfig) -> WeightNames:
    """Return the weight names of `Blip2ForImageTextRetrieval`."""
    return WeightNames(
        [
            *_vision(vision),
            Rename("query_tokens", "queries", QUERIES),
            *with_prefix("qformer.", "qformer.", QFORMER),
            Rename("embeddings.word_embeddings.weight", "word_embedding.weight"),
            Rename("embeddings.position_embeddings.weight", "position_embedding.weight"),
            Rename("vision_projection.{leaf}", "image_projection.{leaf}"),
            Rename("text_projection.{leaf}", "text_projection.{leaf}"),
            Rename("itm_head.{leaf}", "matching_classifier.{leaf}"),
        ],
        # The position indices, which files of transformers 4 contain.
        ignore=["embeddings.position_ids"],
    )


def blip2_weight_names(vision: VisionTransformerConfig, language: DecoderConfig) -> WeightNames:
    """Return the weight names of `Blip2ForConditionalGeneration` with the language model of this config."""
    language_names = opt_weight_names() if is_opt(language) else llama.weight_names(language)
    prefix = "language_model."
    return WeightNames(
        [
            *_vision(vision),
            Rename("query_tokens", "connector.queries", QUERIES),
            *with_prefix("qformer.", "connector.qformer.", QFORMER),
            Rename("language_projection.{leaf}", "connector.projection.{leaf}"),
            *with_prefix(prefix, "language_model.", language_names.rules),
        ],
        ties=[Tie(prefix + tie.published, prefix + tie.to) for tie in language_names.ties],
        ignore=[prefix + name for name in language_names.ignore],
    )


def _vision(config: VisionTransformerConfig) -> list[Rule]:
    return with_prefix(
        "vision_model.",
        "vision_encoder.",
        [
            Rename("embeddings.class_embedding", "class_token", Rearrange("1 1 width -> width")),
            Rename("embeddings.position_embedding", "positions", Rearrange("1 tokens width -> tokens width")),
            Rename("embeddings.patch_embedding.weight", "patch_embedding.project.weight", patch_kernel(config)),
            Rename("embeddings.patch_embedding.bias", "patch_embedding.project.bias"),
            *with_prefix("encoder.layers.{n}.", "blocks.{n}.", VISION_BLOCK),
            Rename("post_layernorm.{leaf}", "norm.{leaf}"),
        ],
    )
