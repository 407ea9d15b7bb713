"""The course's language model: `shared.transformer.Decoder`, a loss, and the folder layout of published Llamas."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model.config_mapping import read_config, write_config
from shared import pretrained
from shared.pretrained import Rename, Tie, WeightNames
from shared.transformer import Decoder, DecoderConfig
from shared.transformer.decoder import RESIDUAL_WEIGHTS

# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class LanguageModel(Decoder):
    """Extend the decoder by an initialization for small widths, and by reading and writing published folders.

    The folder layout is that of `LlamaForCausalLM`; with `qkv_bias` it is that of `Qwen2ForCausalLM`.
    """

    def _initialize(self) -> None:
        """Draw each weight matrix with std 1/√(input width), so that activations keep their scale.

        Llama's std of 0.02 is about that at a width of 2,500. At a width of 64 it would start attention scores near
        zero, and learning to attend would take long. Projections that add to the residual stream start smaller by
        √(2 · depth).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("embedding.weight"):
                nn.init.normal_(parameter, std=0.1)
            elif parameter.ndim >= 2:  # three axes for a stack of matrices, one per expert
                adds = name.endswith(RESIDUAL_WEIGHTS)
                std = parameter.shape[-1] ** -0.5
                nn.init.normal_(parameter, std=std / (2 * self.config.depth) ** 0.5 if adds else std)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LanguageModel":
        """Load the model of a published folder, in evaluation mode.

        Raises CourseError when the folder holds another kind of model, or weights that do not fit its config.
        """
        config = read_config(folder)
        model = cls(config)
        pretrained.load_weights(model, folder, weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write `config.json` and `model.safetensors` in the published class's layout; add `settings` to the config."""
        pretrained.save_pretrained(folder, self, weight_names(self.config), write_config(self.config) | settings)


def next_token_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats, of every token that has a previous token in its own document.

    The logits at position i predict token i + 1. Padding (segment −1) is not counted, and no document's first token
    is predicted from the last token of another document.
    """
    # exercise 0.45: the loss of the next token
    predictable = has_previous_token(segments)
    return F.cross_entropy(logits[:, :-1][predictable], token_ids[:, 1:][predictable])
    # end exercise


def has_previous_token(segments: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch _"]:
    """Return for each of the tokens 1, 2, … whether the token before it belongs to the same document."""
    return (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)


def pack_documents(
    documents: Sequence[Sequence[int]], length: int
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
    """Pack documents of token ids into rows of `length` tokens; return the token ids and the segment of each token.

    A token's segment is the place of its document in the row. Each document goes into the first of the 32 newest rows
    with enough free space. The rest of a row is padding, of segment −1. Documents longer than a row are cut.
    """
    pieces = [document[start : start + length] for document in documents for start in range(0, len(document), length)]
    rows: list[list[Sequence[int]]] = []
    free: list[int] = []
    for piece in pieces:
        first = max(0, len(rows) - 32)
        row = next((row for row in range(first, len(rows)) if free[row] >= len(piece)), None)
        if row is None:
            rows.append([])
            free.append(length)
            row = -1
        rows[row].append(piece)
        free[row] -= len(piece)
    token_ids, segments = torch.zeros(len(rows), length, dtype=torch.long), torch.full((len(rows), length), -1)
    for row, packed in enumerate(rows):
        start = 0
        for segment, piece in enumerate(packed):
            token_ids[row, start : start + len(piece)] = torch.tensor(piece)
            segments[row, start : start + len(piece)] = segment
            start += len(piece)
    return token_ids, segments


# ── The Hugging Face layout ───────────────────────────────────────────────────────────────────────────────────────────

BLOCK_WEIGHT_NAMES = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
    Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
    Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
    Rename("self_attn.o_proj.weight", "attention.output.weight"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    Rename("mlp.gate_proj.weight", "mlp.gate.weight"),
    Rename("mlp.up_proj.weight", "mlp.up.weight"),
    Rename("mlp.down_proj.weight", "mlp.down.weight"),
]


def weight_names(config: DecoderConfig) -> WeightNames:
    """Return the names of the weights in `LlamaForCausalLM` and `Qwen2ForCausalLM`, next to ours."""
    return WeightNames(
        [
            Rename("model.embed_tokens.weight", "embedding.weight"),
            *pretrained.with_prefix("model.layers.{n}.", "blocks.{n}.", BLOCK_WEIGHT_NAMES),
            Rename("model.norm.weight", "norm.weight"),
            *([] if config.tied else [Rename("lm_head.weight", "output.weight")]),
        ],
        ties=[Tie("lm_head.weight", "model.embed_tokens.weight")] if config.tied else [],
        # Old files store the rotary frequencies, which follow from the config.
        ignore=["model.layers.{n}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
    )
