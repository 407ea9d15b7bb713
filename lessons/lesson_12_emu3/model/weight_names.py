"""Names of the weights in published files of Emu3 and of its vision tokenizer."""

from lessons.lesson_12_emu3.model.config import Emu3Config
from shared.pretrained import Rearrange, Rename, Rule, Tie, WeightNames, with_prefix

# ── The vision tokenizer ──────────────────────────────────────────────────────────────────────────────────────────────

# Published as 1 × 1 convolutions.
LINEAR = Rearrange("outputs inputs 1 1 -> outputs inputs")


def norm_rules(published: str, own: str, modulated: bool) -> list[Rule]:
    """Return the names of the encoder's norm, or of the decoder's, which is modulated by the codes."""
    if not modulated:
        return [Rename(f"{published}.{{leaf}}", f"{own}.norm.{{leaf}}")]
    return [
        Rename(f"{published}.norm_layer.{{leaf}}", f"{own}.norm.{{leaf}}"),
        Rename(f"{published}.conv_y.weight", f"{own}.gain.weight", LINEAR),
        Rename(f"{published}.conv_y.bias", f"{own}.gain.bias"),
        Rename(f"{published}.conv_b.weight", f"{own}.shift.weight", LINEAR),
        Rename(f"{published}.conv_b.bias", f"{own}.shift.bias"),
    ]


def block_rules(modulated: bool) -> list[Rule]:
    """Return the names of a residual block within frames."""
    return [
        *norm_rules("norm1", "first_norm", modulated),
        Rename("conv1.{leaf}", "first.{leaf}"),
        *norm_rules("norm2", "second_norm", modulated),
        Rename("conv2.{leaf}", "second.{leaf}"),
        Rename("nin_shortcut.{leaf}", "shortcut.{leaf}"),
    ]


ATTENTION: list[Rule] = [
    Rename(f"{name}_proj.{{leaf}}", f"attention.{part}.{{leaf}}")
    for name, part in {"q": "query", "k": "key", "v": "value", "out": "output"}.items()
]
TEMPORAL_BLOCK: list[Rule] = [
    Rename("norm1.{leaf}", "first_norm.{leaf}"),
    Rename("conv1.conv.{leaf}", "first.conv.{leaf}"),
    Rename("norm2.{leaf}", "second_norm.{leaf}"),
    Rename("conv2.conv.{leaf}", "second.conv.{leaf}"),
]


def side_rules(modulated: bool) -> list[Rule]:
    """Return the names of the encoder's parts, or of the decoder's, whose norms are modulated."""
    level, resize, halvings = (
        ("up_block.up.{level}.", "upsample", "doublings")
        if modulated
        else ("down_block.down.{level}.", "downsample", "halvings")
    )
    block = block_rules(modulated)
    return [
        Rename("conv_in.{leaf}", "first.{leaf}"),
        *with_prefix(f"{level}block.{{n}}.", "resolutions.{level}.blocks.{n}.", block),
        *with_prefix(f"{level}attn.{{n}}.", "resolutions.{level}.attentions.{n}.", ATTENTION),
        *norm_rules(f"{level}attn_norms.{{n}}", "resolutions.{level}.attentions.{n}.norm", modulated),
        Rename(f"{level}{resize}.conv.{{leaf}}", "resolutions.{level}.resize.conv.{leaf}"),
        *with_prefix("middle_block.block_1.", "middle.first.", block),
        *with_prefix("middle_block.attn_1.", "middle.attention.", ATTENTION),
        *norm_rules("middle_block.attn_norm", "middle.attention.norm", modulated),
        *with_prefix("middle_block.block_2.", "middle.second.", block),
        *norm_rules("norm_out", "norm", modulated),
        Rename("conv_out.{leaf}", "last.{leaf}"),
        Rename("time_conv.{n}.conv.conv.{leaf}", f"{halvings}.{{n}}.conv.{{leaf}}"),
        *with_prefix("time_res_stack.{n}.", "temporal_blocks.{n}.", TEMPORAL_BLOCK),
    ]


TOKENIZER: list[Rule] = [
    *with_prefix("encoder.", "encoder.", side_rules(modulated=False)),
    *with_prefix("decoder.", "decoder.", side_rules(modulated=True)),
    Rename("quant_conv.conv.{leaf}", "before_codebook.conv.{leaf}"),
    Rename("quantize.embedding.weight", "codebook.weight"),
    Rename("post_quant_conv.conv.{leaf}", "after_codebook.conv.{leaf}"),
]


def tokenizer_weight_names() -> WeightNames:
    """Return the names of the weights in `Emu3VQVAE`."""
    return WeightNames(TOKENIZER)


# ── The decoder ───────────────────────────────────────────────────────────────────────────────────────────────────────

BLOCK: list[Rule] = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    *(
        Rename(f"self_attn.{name}_proj.{{leaf}}", f"attention.{part}.{{leaf}}")
        for name, part in {"q": "query", "k": "key", "v": "value", "o": "output"}.items()
    ),
    *(Rename(f"mlp.{name}_proj.{{leaf}}", f"mlp.{name}.{{leaf}}") for name in ("gate", "up", "down")),
]


def model_rules(language: str, tokenizer: str, output: str, tied: bool) -> list[Rule]:
    """Return all rules, for one spelling of the names of the parts."""
    return [
        Rename(f"{language}embed_tokens.weight", "language_model.embedding.weight"),
        *with_prefix(f"{language}layers.{{n}}.", "language_model.blocks.{n}.", BLOCK),
        Rename(f"{language}norm.weight", "language_model.norm.weight"),
        *([] if tied else [Rename(output, "language_model.output.weight")]),
        *with_prefix(tokenizer, "tokenizer.", TOKENIZER),
    ]


PUBLIC = ("text_model.model.", "vqmodel.", "text_model.lm_head.weight")
IN_MEMORY = ("model.text_model.", "model.vqmodel.", "lm_head.weight")
"""Prefixes of the parts in public files, and those of the class's own weights."""


def weight_names(config: Emu3Config) -> WeightNames:
    """Return the names of the weights in `Emu3ForConditionalGeneration`; those of public files are written."""
    tied = config.language.tied
    ties = [Tie(names[2], f"{names[0]}embed_tokens.weight") for names in (PUBLIC, IN_MEMORY)]
    return WeightNames(
        model_rules(*PUBLIC, tied),
        also_read=model_rules(*IN_MEMORY, tied),
        ties=ties if tied else [],
        # Old files store the rotary frequencies, which follow from the config.
        ignore=[f"{names[0]}rotary_emb.inv_freq" for names in (PUBLIC, IN_MEMORY)],
    )
