"""Mixtral: a Llama whose MLPs are sparse mixtures of experts (arXiv:2401.04088)."""

from pathlib import Path
from typing import Any

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.experts import Experts, SparseMLP, TopKRouter
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig, parse_config, write_config
from shared import pretrained
from shared.pretrained import Rename, Rule, Split, Stack, Tie, WeightNames, with_prefix
from shared.transformer import Attention, Block, RMSNorm, Scores


class Mixtral(LanguageModel):
    """Predict the next token; the folder layout is that of `MixtralForCausalLM`."""

    config: MixtralConfig

    def __init__(self, config: MixtralConfig):
        super().__init__(config, lambda _: build_block(config))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Mixtral":
        """Load the model of a published folder, in evaluation mode.

        Raises CourseError when the folder holds another kind of model, or weights that do not fit its config.
        """
        config = parse_config(pretrained.read_config(folder), folder)
        model = cls(config)
        pretrained.load_weights(model, folder, weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write `config.json` and `model.safetensors` in the published class's layout; add `settings` to the config."""
        pretrained.save_pretrained(folder, self, weight_names(self.config), write_config(self.config) | settings)


def build_block(config: MixtralConfig) -> Block:
    """Build one block: grouped-query attention, and experts in place of the MLP."""
    attention = Attention(
        config.width,
        config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        bias=False,
        scores=Scores(scale=config.score_scale),
    )
    router = TopKRouter(config.width, config.experts, config.experts_per_token)
    mlp = SparseMLP(router, Experts(config.experts, config.width, config.mlp_dim))
    return Block(attention, mlp, lambda: RMSNorm(config.width, config.norm_eps))


# ── The Hugging Face layout ───────────────────────────────────────────────────────────────────────────────────────────

BLOCK_WEIGHT_NAMES: list[Rule] = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("self_attn.q_proj.weight", "attention.query.weight"),
    Rename("self_attn.k_proj.weight", "attention.key.weight"),
    Rename("self_attn.v_proj.weight", "attention.value.weight"),
    Rename("self_attn.o_proj.weight", "attention.output.weight"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    Rename("block_sparse_moe.gate.weight", "mlp.router.weight"),
    Stack("block_sparse_moe.experts.{each}.w1.weight", "mlp.experts.gate"),
    Stack("block_sparse_moe.experts.{each}.w3.weight", "mlp.experts.up"),
    Stack("block_sparse_moe.experts.{each}.w2.weight", "mlp.experts.down"),
]
# Version 5 of transformers holds the experts like this in memory; files saved from there without conversion have it.
FUSED_EXPERTS: list[Rule] = [
    Rename("mlp.gate.weight", "mlp.router.weight"),
    Split("mlp.experts.gate_up_proj", ["mlp.experts.gate", "mlp.experts.up"], dim=1),
    Rename("mlp.experts.down_proj", "mlp.experts.down"),
]


def weight_names(config: MixtralConfig) -> WeightNames:
    """Return the names of the weights in `MixtralForCausalLM`, next to ours."""
    return WeightNames(
        [
            Rename("model.embed_tokens.weight", "embedding.weight"),
            *with_prefix("model.layers.{n}.", "blocks.{n}.", BLOCK_WEIGHT_NAMES),
            Rename("model.norm.weight", "norm.weight"),
            *([] if config.tied else [Rename("lm_head.weight", "output.weight")]),
        ],
        also_read=with_prefix("model.layers.{n}.", "blocks.{n}.", FUSED_EXPERTS),
        ties=[Tie("lm_head.weight", "model.embed_tokens.weight")] if config.tied else [],
        # Old files store the rotary frequencies, which follow from the config.
        ignore=["model.layers.{n}.self_attn.rotary_emb.inv_freq"],
    )
