"""Names of the weights in published files: tables for ViT, DeiT, MAE, DINOv2, and DINOv2 with registers."""

from lessons.lesson_01_vit.model.config import VisionTransformerConfig
from shared.pretrained import Rearrange, Rename, Rule, Split, WeightNames, with_prefix

# ── Inside a block ────────────────────────────────────────────────────────────────────────────────────────────────────

ATTENTION = [
    Rename("attention.attention.query.{leaf}", "attention.query.{leaf}"),
    Rename("attention.attention.key.{leaf}", "attention.key.{leaf}"),
    Rename("attention.attention.value.{leaf}", "attention.value.{leaf}"),
    Rename("attention.output.dense.{leaf}", "attention.output.{leaf}"),
]
VIT_NORMS = [
    Rename("layernorm_before.{leaf}", "attention_norm.{leaf}"),
    Rename("layernorm_after.{leaf}", "mlp_norm.{leaf}"),
]
VIT_BLOCK = [
    *ATTENTION,
    *VIT_NORMS,
    Rename("intermediate.dense.{leaf}", "mlp.up.{leaf}"),
    Rename("output.dense.{leaf}", "mlp.down.{leaf}"),
]
DINOV2_BLOCK = [
    *ATTENTION,
    Rename("norm1.{leaf}", "attention_norm.{leaf}"),
    Rename("norm2.{leaf}", "mlp_norm.{leaf}"),
    Rename("layer_scale1.lambda1", "attention_scale"),
    Rename("layer_scale2.lambda1", "mlp_scale"),
]
MLP = [
    Rename("mlp.fc1.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.fc2.{leaf}", "mlp.down.{leaf}"),
]
# Published files store a SwiGLU's gate and up projection as one matrix.
SWIGLU = [
    Split("mlp.weights_in.{leaf}", ["mlp.gate.{leaf}", "mlp.up.{leaf}"]),
    Rename("mlp.weights_out.{leaf}", "mlp.down.{leaf}"),
]
# Files written from a state dict in memory since version 5 of transformers use its new module names.
ATTENTION_IN_MEMORY = [
    Rename("attention.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("attention.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("attention.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("attention.o_proj.{leaf}", "attention.output.{leaf}"),
]
SWIGLU_IN_MEMORY = [
    Rename("mlp.gate_proj.{leaf}", "mlp.gate.{leaf}"),
    Rename("mlp.up_proj.{leaf}", "mlp.up.{leaf}"),
    Rename("mlp.down_proj.{leaf}", "mlp.down.{leaf}"),
]
VIT_BLOCK_IN_MEMORY = [*ATTENTION_IN_MEMORY, *VIT_NORMS, *MLP]

# ── Whole models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def vit_weight_names(config: VisionTransformerConfig, architecture: str) -> WeightNames:
    """Return the names of `ViTModel`, or of a class that has it under a prefix and adds heads."""
    rules = [*_embeddings(config), *with_prefix("encoder.layer.{n}.", "blocks.{n}.", VIT_BLOCK)]
    also_read = with_prefix("layers.{n}.", "blocks.{n}.", VIT_BLOCK_IN_MEMORY)
    if architecture == "ViTModel":
        return WeightNames(rules, also_read=also_read)
    if architecture == "ViTForImageClassification":
        prefix, heads = "vit.", [Rename("classifier.{leaf}", "head.{leaf}")]
    else:
        prefix = "deit."
        heads = [
            Rename("cls_classifier.{leaf}", "head.{leaf}"),
            Rename("distillation_classifier.{leaf}", "distillation_head.{leaf}"),
        ]
    return WeightNames([*with_prefix(prefix, "", rules), *heads], also_read=with_prefix(prefix, "", also_read))


def dinov2_weight_names(config: VisionTransformerConfig) -> WeightNames:
    """Return the names of `Dinov2Model` and `Dinov2WithRegistersModel`."""
    block = [*DINOV2_BLOCK, *(SWIGLU if config.swiglu else MLP)]
    in_memory = [*ATTENTION_IN_MEMORY, *SWIGLU_IN_MEMORY]
    return WeightNames(
        [*_embeddings(config), *with_prefix("encoder.layer.{n}.", "blocks.{n}.", block)],
        also_read=with_prefix("encoder.layer.{n}.", "blocks.{n}.", in_memory),
    )


def mae_weight_names(config: VisionTransformerConfig) -> WeightNames:
    """Return the names of `ViTMAEForPreTraining`; `config` is that of its encoder."""
    encoder = [*_embeddings(config), *with_prefix("encoder.layer.{n}.", "blocks.{n}.", VIT_BLOCK)]
    decoder = [
        Rename("decoder_embed.{leaf}", "decoder_embedding.{leaf}"),
        Rename("mask_token", "mask_token", Rearrange("1 1 width -> width")),
        Rename("decoder_pos_embed", "decoder_positions", Rearrange("1 tokens width -> tokens width")),
        *with_prefix("decoder_layers.{n}.", "decoder_blocks.{n}.", VIT_BLOCK),
        Rename("decoder_norm.{leaf}", "decoder_norm.{leaf}"),
        Rename("decoder_pred.{leaf}", "predict.{leaf}"),
    ]
    return WeightNames(
        [*with_prefix("vit.", "encoder.", encoder), *with_prefix("decoder.", "", decoder)],
        also_read=[
            *with_prefix("vit.layers.{n}.", "encoder.blocks.{n}.", VIT_BLOCK_IN_MEMORY),
            *with_prefix("decoder.decoder_layers.{n}.", "decoder_blocks.{n}.", VIT_BLOCK_IN_MEMORY),
            # Version 5 of transformers writes its new `layers.` as the old `encoder.layer.`, even in `decoder_layers.`
            *with_prefix("decoder.decoder_encoder.layer.{n}.", "decoder_blocks.{n}.", VIT_BLOCK),
        ],
    )


def patch_kernel(config: VisionTransformerConfig) -> Rearrange:
    """Return how the weights of a patch embedding are stored in published files.

    There they are the kernel of a convolution, channel first; ours are a linear layer's, channel last.
    """
    return Rearrange(
        "width channels row column -> width (row column channels)",
        channels=config.channels,
        row=config.patch_size,
        column=config.patch_size,
    )


def _embeddings(config: VisionTransformerConfig) -> list[Rule]:
    one_token, tokens = Rearrange("1 1 width -> width"), Rearrange("1 tokens width -> tokens width")
    return [
        Rename("embeddings.patch_embeddings.projection.weight", "patch_embedding.project.weight", patch_kernel(config)),
        Rename("embeddings.patch_embeddings.projection.bias", "patch_embedding.project.bias"),
        Rename("embeddings.cls_token", "class_token", one_token),
        Rename("embeddings.distillation_token", "distillation_token", one_token),
        Rename("embeddings.position_embeddings", "positions", tokens),
        Rename("embeddings.register_tokens", "registers", tokens),
        Rename("embeddings.mask_token", "mask_token", Rearrange("1 width -> width")),
        Rename("layernorm.{leaf}", "norm.{leaf}"),
        Rename("pooler.dense.{leaf}", "pooler.{leaf}"),
    ]
