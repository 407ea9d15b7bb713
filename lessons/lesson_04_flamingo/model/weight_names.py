"""What published files call each weight of `IdeficsForVisionText2Text`."""

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_02_clip.model.weight_names import vision_weight_names
from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from shared.pretrained import Join, Rearrange, Rename, Rule, WeightNames, with_prefix

RESAMPLER_BLOCK = [
    Rename("0.context_layer_norm.{leaf}", "context_norm.{leaf}"),
    Rename("0.latents_layer_norm.{leaf}", "latents_norm.{leaf}"),
    Rename("0.q_proj.weight", "attention.query.weight"),
    Rename("0.k_proj.weight", "attention.key.weight"),
    Rename("0.v_proj.weight", "attention.value.weight"),
    Rename("0.output_proj.weight", "attention.output.weight"),
    Rename("0.q_layer_norm.{leaf}", "attention.query_norm.{leaf}"),
    Rename("0.k_layer_norm.{leaf}", "attention.key_norm.{leaf}"),
    Rename("1.ln.{leaf}", "mlp_norm.{leaf}"),
    Rename("1.fc.weight", "mlp.up.weight"),
    Rename("1.c_proj.weight", "mlp.down.weight"),
]
INSERTED = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("cross_attn.q_proj.weight", "attention.query.weight"),
    Rename("cross_attn.k_proj.weight", "attention.key.weight"),
    Rename("cross_attn.v_proj.weight", "attention.value.weight"),
    Rename("cross_attn.o_proj.weight", "attention.output.weight"),
    Rename("cross_attn.q_layer_norm.weight", "attention.query_norm.weight"),
    Rename("cross_attn.k_layer_norm.weight", "attention.key_norm.weight"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    Rename("mlp.gate_proj.weight", "mlp.gate.weight"),
    Rename("mlp.up_proj.weight", "mlp.up.weight"),
    Rename("mlp.down_proj.weight", "mlp.down.weight"),
]


def idefics_table(config: FlamingoConfig, vision: VisionTransformerConfig, vocab_size: int, added: int) -> WeightNames:
    """`IdeficsForVisionText2Text`; of its vocabulary `vocab_size` tokens are the language model's own and `added` are not."""
    gate = Rearrange("1 1 width -> width") if config.gates == "vector" else None
    gates = [
        Rename("alpha_cross_attn", "attention_gate", gate),
        Rename("alpha_dense", "mlp_gate", gate),
    ]
    return WeightNames(
        [
            # The tower's table begins with `vision_model.` by itself.
            *with_prefix("model.", "vision.", vision_weight_names(vision).rules),
            Rename("model.perceiver_resampler.latents", "resampler.latents"),
            Rename("model.perceiver_resampler.layer_norm.{leaf}", "resampler.norm.{leaf}"),
            *with_prefix("model.perceiver_resampler.blocks.{n}.", "resampler.blocks.{n}.", RESAMPLER_BLOCK),
            *with_prefix("model.gated_cross_attn_layers.{n}.", "inserted.{n}.", [*INSERTED, *gates]),
            *with_prefix("model.layers.{n}.", "language.blocks.{n}.", llama.BLOCK_WEIGHT_NAMES),
            Rename("model.norm.weight", "language.norm.weight"),
            _words("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight", "embedding", vocab_size, added),
            _words("lm_head.weight", "lm_head.additional_fc.weight", "output", vocab_size, added),
        ],
        ignore=["model.vision_model.embeddings.position_ids"]
        + [f"model.{layers}.{{n}}.{part}.rotary_emb.inv_freq" for layers, part in (("layers", "self_attn"), ("gated_cross_attn_layers", "cross_attn"))],
    )  # fmt: skip


def _words(own: str, others: str, ours: str, vocab_size: int, added: int) -> Rule:
    """The vectors of added tokens lie apart on disk, because they learn while the others are frozen; here they are one table."""
    ours = f"language.{ours}.weight"
    return Join([own, others], ours, sizes=[vocab_size, added]) if added else Rename(own, ours)
