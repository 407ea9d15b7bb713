"""Names of the weights in published files of Chameleon and of its image tokenizer."""

from lessons.lesson_11_chameleon.model.config import ChameleonConfig
from shared.pretrained import Rearrange, Rename, Rule, Tie, WeightNames, with_prefix

# ── The image tokenizer ───────────────────────────────────────────────────────────────────────────────────────────────

RESIDUAL: list[Rule] = [
    Rename("norm1.{leaf}", "first_norm.{leaf}"),
    Rename("conv1.{leaf}", "first.{leaf}"),
    Rename("norm2.{leaf}", "second_norm.{leaf}"),
    Rename("conv2.{leaf}", "second.{leaf}"),
    Rename("nin_shortcut.{leaf}", "shortcut.{leaf}"),
]
# Published as 1 × 1 convolutions.
LINEAR = Rearrange("outputs inputs 1 1 -> outputs inputs")
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "proj_out": "output"}
SPATIAL_ATTENTION: list[Rule] = [
    Rename("norm.{leaf}", "norm.{leaf}"),
    *(Rename(f"{name}.weight", f"attention.{part}.weight", LINEAR) for name, part in PROJECTIONS.items()),
    *(Rename(f"{name}.bias", f"attention.{part}.bias") for name, part in PROJECTIONS.items()),
]
VQ: list[Rule] = [
    Rename("encoder.conv_in.{leaf}", "first.{leaf}"),
    *with_prefix("encoder.down.{level}.block.{n}.", "resolutions.{level}.blocks.{n}.", RESIDUAL),
    *with_prefix("encoder.down.{level}.attn.{n}.", "resolutions.{level}.attentions.{n}.", SPATIAL_ATTENTION),
    Rename("encoder.down.{level}.downsample.conv.{leaf}", "resolutions.{level}.halve.{leaf}"),
    *with_prefix("encoder.mid.block_1.", "middle.0.", RESIDUAL),
    *with_prefix("encoder.mid.attn_1.", "middle.1.", SPATIAL_ATTENTION),
    *with_prefix("encoder.mid.block_2.", "middle.2.", RESIDUAL),
    Rename("encoder.norm_out.{leaf}", "norm.{leaf}"),
    Rename("encoder.conv_out.{leaf}", "last.{leaf}"),
    Rename("quant_conv.{leaf}", "before_codebook.{leaf}"),
    Rename("quantize.embedding.weight", "codebook.weight"),
    Rename("post_quant_conv.{leaf}", "after_codebook.{leaf}"),
]


def vq_weight_names() -> WeightNames:
    """Return the names of the weights in `ChameleonVQVAE`."""
    return WeightNames(VQ)


# ── The decoder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def weight_names(config: ChameleonConfig) -> WeightNames:
    """Return the names of the weights in `ChameleonForConditionalGeneration`.

    Norms after the parts have the same published names as norms before them.
    """
    language, after = config.language, config.design.norms_after
    attention_norm, mlp_norm = ("attention_post_norm", "mlp_post_norm") if after else ("attention_norm", "mlp_norm")
    per_head = Rearrange("heads dim -> (heads dim)", dim=language.width_per_head)
    block: list[Rule] = [
        Rename("input_layernorm.weight", f"{attention_norm}.weight"),
        Rename("post_attention_layernorm.weight", f"{mlp_norm}.weight"),
        Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
        Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
        Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
        Rename("self_attn.o_proj.{leaf}", "attention.output.{leaf}"),
        Rename("self_attn.q_norm.{leaf}", "attention.query_norm.{leaf}", per_head),
        Rename("self_attn.k_norm.{leaf}", "attention.key_norm.{leaf}", per_head),
        Rename("mlp.gate_proj.{leaf}", "mlp.gate.{leaf}"),
        Rename("mlp.up_proj.{leaf}", "mlp.up.{leaf}"),
        Rename("mlp.down_proj.{leaf}", "mlp.down.{leaf}"),
    ]
    rules: list[Rule] = [
        Rename("model.embed_tokens.weight", "language_model.embedding.weight"),
        *with_prefix("model.layers.{n}.", "language_model.blocks.{n}.", block),
        Rename("model.norm.weight", "language_model.norm.weight"),
        *([] if language.tied else [Rename("lm_head.weight", "language_model.output.weight")]),
        *with_prefix("model.vqmodel.", "image_tokenizer.", VQ),
    ]
    return WeightNames(
        rules,
        ties=[Tie("lm_head.weight", "model.embed_tokens.weight")] if language.tied else [],
        # Old files store the rotary frequencies, which follow from the config.
        ignore=["model.layers.{n}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
    )
