"""DeepSeek-V3: a decoder with multi-head latent attention and sparse experts (arXiv:2412.19437, figure 2)."""

import re
from pathlib import Path
from typing import Any

from torch import nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig, parse_config, write_config
from lessons.lesson_07_recipes.model.deepseek_router import SigmoidRouter
from lessons.lesson_07_recipes.model.experts import Experts, SparseMLP
from lessons.lesson_07_recipes.model.latent_attention import LatentAttention
from shared import pretrained
from shared.pretrained import Checkpoint, Rename, Rule, Stack, Tie, WeightNames, with_prefix
from shared.transformer import Block, RMSNorm, SwiGLU


class DeepSeekV3(LanguageModel):
    """Predict the next token; the folder layout is that of `DeepseekV3ForCausalLM`.

    The layers for multi-token prediction of published files are not part of the model; it generates without them.
    """

    config: DeepSeekConfig

    def __init__(self, config: DeepSeekConfig):
        super().__init__(config, lambda layer: build_block(config, layer))

    def absorb(self, absorbed: bool | None) -> None:
        """Set for all layers whether attention is computed on the latents (`LatentAttention.absorbed`)."""
        for module in self.modules():
            if isinstance(module, LatentAttention):
                module.absorbed = absorbed

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "DeepSeekV3":
        """Load the model of a published folder, in evaluation mode.

        Raises CourseError when the folder holds another kind of model, or weights that do not fit its config.
        """
        config = parse_config(pretrained.read_config(folder), folder)
        with Checkpoint(folder) as checkpoint:
            ignored_layers = prediction_layers(set(checkpoint.shapes), config.depth)
        model = cls(config)
        pretrained.load_weights(model, folder, weight_names(config, ignored_layers))
        return model.eval()

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write `config.json` and `model.safetensors` in the published class's layout; add `settings` to the config."""
        pretrained.save_pretrained(folder, self, weight_names(self.config), write_config(self.config) | settings)


def build_block(config: DeepSeekConfig, layer: int) -> Block:
    """Build the block of a layer: the first `dense_layers` have an MLP, the others experts."""
    if layer < config.dense_layers:
        mlp: nn.Module = SwiGLU(config.width, config.mlp_dim)
    else:
        router = SigmoidRouter(
            config.width,
            config.experts,
            config.experts_per_token,
            groups=config.groups,
            groups_per_token=config.groups_per_token,
            normalize_weights=config.normalize_weights,
            scale=config.routing_scale,
        )
        experts = Experts(config.experts, config.width, config.expert_dim)
        shared_dim = config.shared_experts * config.expert_dim
        mlp = SparseMLP(router, experts, SwiGLU(config.width, shared_dim) if shared_dim else None)
    return Block(LatentAttention(config), mlp, lambda: RMSNorm(config.width, config.norm_eps))


# ── The Hugging Face layout ───────────────────────────────────────────────────────────────────────────────────────────

SWIGLU = [
    Rename("gate_proj.weight", "gate.weight"),
    Rename("up_proj.weight", "up.weight"),
    Rename("down_proj.weight", "down.weight"),
]
BLOCK_WEIGHT_NAMES: list[Rule] = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("self_attn.q_proj.weight", "attention.query.weight"),
    Rename("self_attn.q_a_proj.{leaf}", "attention.query_down.{leaf}"),
    Rename("self_attn.q_a_layernorm.weight", "attention.query_norm.weight"),
    Rename("self_attn.q_b_proj.weight", "attention.query_up.weight"),
    Rename("self_attn.kv_a_proj_with_mqa.{leaf}", "attention.down.{leaf}"),
    Rename("self_attn.kv_a_layernorm.weight", "attention.latent_norm.weight"),
    Rename("self_attn.kv_b_proj.weight", "attention.up.weight"),
    Rename("self_attn.o_proj.{leaf}", "attention.output.{leaf}"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    *with_prefix("mlp.", "mlp.", SWIGLU),
    Rename("mlp.gate.weight", "mlp.router.weight"),
    Rename("mlp.gate.e_score_correction_bias", "mlp.router.bias"),
    Stack("mlp.experts.{each}.gate_proj.weight", "mlp.experts.gate"),
    Stack("mlp.experts.{each}.up_proj.weight", "mlp.experts.up"),
    Stack("mlp.experts.{each}.down_proj.weight", "mlp.experts.down"),
    *with_prefix("mlp.shared_experts.", "mlp.shared.", SWIGLU),
]
PREDICTION_WEIGHTS = [
    *("enorm.weight", "hnorm.weight", "eh_proj.weight", "embed_tokens.weight"),
    *("shared_head.norm.weight", "shared_head.head.weight"),
]
"""The weights that a layer for multi-token prediction has in addition to a block's (arXiv:2412.19437, section 2.2)."""


def prediction_layers(names: set[str], depth: int) -> list[int]:
    """Return the numbers of a file's layers for multi-token prediction, which follow the `depth` layers of the model.

    Such a layer is recognized by its projection. A block beyond the model's depth has none and stays an error.
    """
    matches = [re.fullmatch(r"model\.layers\.(\d+)\.eh_proj\.weight", name) for name in names]
    return sorted(int(match[1]) for match in matches if match and int(match[1]) >= depth)


def weight_names(config: DeepSeekConfig, ignored_layers: list[int] | None = None) -> WeightNames:
    """Return the names of the weights in `DeepseekV3ForCausalLM`, next to ours.

    ignored_layers  layers for multi-token prediction, whose known weights a file may contain
    """
    block_names = [name for rule in BLOCK_WEIGHT_NAMES for name in rule.patterns[0]]
    return WeightNames(
        [
            Rename("model.embed_tokens.weight", "embedding.weight"),
            *with_prefix("model.layers.{n}.", "blocks.{n}.", BLOCK_WEIGHT_NAMES),
            Rename("model.norm.weight", "norm.weight"),
            *([] if config.tied else [Rename("lm_head.weight", "output.weight")]),
        ],
        ties=[Tie("lm_head.weight", "model.embed_tokens.weight")] if config.tied else [],
        ignore=[
            # Old files store the rotary frequencies, which follow from the config.
            "model.layers.{n}.self_attn.rotary_emb.inv_freq",
            *(
                f"model.layers.{layer}.{name}"
                for layer in ignored_layers or []
                for name in [*block_names, *PREDICTION_WEIGHTS]
            ),
        ],
    )
