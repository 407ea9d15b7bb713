"""The names of the weights in published `IdeficsForVisionText2Text` checkpoints."""

from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_01_vit.model import VisionTransformerConfig
from lessons.lesson_02_clip.model.weight_names import vision_weight_names
from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from shared.pretrained import Join, Rearrange, Rename, Rule, WeightNames, with_prefix

RESAMPLER_BLOCK: list[Rule] = [
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
CROSS_ATTENTION_LAYER: list[Rule] = [
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


def idefics_weight_names(
    config: FlamingoConfig, vision: VisionTransformerConfig, vocab_size: int, added_tokens: int
) -> WeightNames:
    """Return the weight names of `IdeficsForVisionText2Text`.

    vocab_size    size of the language model's original vocabulary
    added_tokens  number of tokens after it, whose vectors are stored separately
    """
    gate = Rearrange("1 1 width -> width") if config.gates == "vector" else None
    gates = [Rename("alpha_cross_attn", "attention_gate", gate), Rename("alpha_dense", "mlp_gate", gate)]
    cross_attention_layer = [*CROSS_ATTENTION_LAYER, *gates]
    frequencies = (("layers", "self_attn"), ("gated_cross_attn_layers", "cross_attn"))
    return WeightNames(
        [
            # The names of the vision encoder begin with `vision_model.`.
            *with_prefix("model.", "vision_encoder.", vision_weight_names(vision).rules),
            Rename("model.perceiver_resampler.latents", "resampler.latents"),
            Rename("model.perceiver_resampler.layer_norm.{leaf}", "resampler.norm.{leaf}"),
            *with_prefix("model.perceiver_resampler.blocks.{n}.", "resampler.blocks.{n}.", RESAMPLER_BLOCK),
            *with_prefix("model.gated_cross_attn_layers.{n}.", "cross_attention_layers.{n}.", cross_attention_layer),
            *with_prefix("model.layers.{n}.", "language_model.blocks.{n}.", llama.BLOCK_WEIGHT_NAMES),
            Rename("model.norm.weight", "language_model.norm.weight"),
            _vocabulary("model.embed_tokens.{}weight", "additional_embedding.", "embedding", vocab_size, added_tokens),
            _vocabulary("lm_head.{}weight", "additional_fc.", "output", vocab_size, added_tokens),
        ],
        ignore=["model.vision_model.embeddings.position_ids"]
        + [f"model.{layers}.{{n}}.{part}.rotary_emb.inv_freq" for layers, part in frequencies],
    )


def _vocabulary(published: str, added_part: str, name: str, vocab_size: int, added_tokens: int) -> Rule:
    """Return the rule of a matrix with one row per token: published files hold the rows of added tokens separately."""
    name, original = f"language_model.{name}.weight", published.format("")
    if not added_tokens:
        return Rename(original, name)
    return Join([original, published.format(added_part)], name, sizes=[vocab_size, added_tokens])
