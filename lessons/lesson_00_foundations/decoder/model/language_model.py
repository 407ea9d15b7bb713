"""The course's own small language model: `shared.transformer.Decoder`, with a loss and the folder layout of published Llamas."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Fixed, Rename, Setting, Table, Tie, read_settings, write_settings
from shared.transformer import Decoder, DecoderConfig, Llama3Scaling

# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class LanguageModel(Decoder):
    """A decoder whose weights start at a size that fits its width, and that reads and writes published folders: `LlamaForCausalLM`'s, and
    with biases on queries, keys and values `Qwen2ForCausalLM`'s."""

    def _initialize(self) -> None:
        """Draw each matrix so that signals keep their size: 1/√inputs.

        (Llama's deviation of 0.02 is about that at a width of 2,500; at 64, scores would start near zero, and attention
        would take long to find anything.) Branches that add to the stream start smaller, the deeper the model.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("embedding.weight"):
                nn.init.normal_(parameter, std=0.1)
            elif parameter.ndim == 2:
                adds = name.endswith(("attention.output.weight", "mlp.down.weight"))
                deviation = parameter.shape[1] ** -0.5
                nn.init.normal_(parameter, std=deviation / (2 * self.config.depth) ** 0.5 if adds else deviation)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LanguageModel":
        """The model of a published folder. Raises CourseError when it holds another kind, or weights that do not fit."""
        config = read_config(folder)
        model = cls(config)
        pretrained.load_weights(model, folder, table(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write `config.json` and `model.safetensors` as the published class has them; `settings` join the config."""
        pretrained.save_pretrained(folder, self, table(self.config), write_config(self.config) | settings)


def next_token_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    tokens: Int[Tensor, "batch tokens"],
    segments: Int[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """The mean surprise, in nats, at every token that has one before it in its own document.

    Row i of the logits speaks of token i + 1. Of padding (segment −1) nothing is asked, nor is the first token of a
    document guessed from the last of another.
    """
    # exercise 0.45: the loss of the next token
    inside = predicted(segments)
    return F.cross_entropy(logits[:, :-1][inside], tokens[:, 1:][inside])
    # end exercise


def predicted(segments: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch _"]:
    """Which of the tokens 1, 2, … follow one of their own document."""
    return (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)


def pack(
    documents: Sequence[Sequence[int]], length: int
) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
    """Documents side by side in rows of `length` tokens, and the segment of each token: its document's place in the row.

    Each goes into the first of the 32 newest rows that has room; what is left over is padding, of segment −1. Longer
    documents are cut into pieces.
    """
    pieces = [document[at : at + length] for document in documents for at in range(0, len(document), length)]
    rows: list[list[Sequence[int]]] = []
    room: list[int] = []
    for piece in pieces:
        first = max(0, len(rows) - 32)
        row = next((row for row in range(first, len(rows)) if room[row] >= len(piece)), None)
        if row is None:
            rows.append([])
            room.append(length)
            row = -1
        rows[row].append(piece)
        room[row] -= len(piece)
    tokens, segments = torch.zeros(len(rows), length, dtype=torch.long), torch.full((len(rows), length), -1)
    for row, packed in enumerate(rows):
        at = 0
        for segment, piece in enumerate(packed):
            tokens[row, at : at + len(piece)] = torch.tensor(piece)
            segments[row, at : at + len(piece)] = segment
            at += len(piece)
    return tokens, segments


# ── The Hugging Face layout ───────────────────────────────────────────────────────────────────────────────────────────

SETTINGS = [
    Setting("vocab_size", "vocab_size", 32_000),
    Setting("hidden_size", "width", 4096),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("intermediate_size", "mlp_dim", 11_008),
    Setting("rms_norm_eps", "norm_eps", 1e-6),
    Setting("tie_word_embeddings", "tied", False),
    Fixed("hidden_act", "silu"),
    Fixed("attention_bias", False),
    Fixed("mlp_bias", False),
]
OTHER_DEFAULTS = {"vocab_size": 151_936, "mlp_dim": 22_016}
QWEN2_SETTINGS = [
    *(
        replace(setting, default=OTHER_DEFAULTS.get(setting.ours, setting.default))
        for setting in SETTINGS
        if isinstance(setting, Setting)
    ),
    Fixed("hidden_act", "silu"),
    Fixed("use_sliding_window", False),
]
SCALING = [
    Setting("factor", "factor"),
    Setting("low_freq_factor", "low_frequency_factor"),
    Setting("high_freq_factor", "high_frequency_factor"),
    Setting("original_max_position_embeddings", "original_context"),
]
BLOCK = [
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


def table(config: DecoderConfig) -> Table:
    """What `LlamaForCausalLM` and `Qwen2ForCausalLM` call each weight."""
    return Table(
        [
            Rename("model.embed_tokens.weight", "embedding.weight"),
            *pretrained.under("model.layers.{n}.", "blocks.{n}.", BLOCK),
            Rename("model.norm.weight", "norm.weight"),
            *([] if config.tied else [Rename("lm_head.weight", "output.weight")]),
        ],
        ties=[Tie("lm_head.weight", "model.embed_tokens.weight")] if config.tied else [],
        # Old files hold the rotary frequencies, which follow from the config.
        ignore=["model.layers.{n}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
    )


def read_config(folder: Path | str) -> DecoderConfig:
    """Our config of a published folder. Raises CourseError when it holds another kind of model."""
    return config_from(pretrained.read_config(folder), folder)


def config_from(config: Mapping[str, Any], folder: Path | str) -> DecoderConfig:
    """Our config of published settings, which may be a part of a larger file (`text_config`).

    Raises CourseError, naming the folder, when they are those of another kind of model.
    """
    kind = config.get("model_type")
    if kind not in ("llama", "qwen2"):
        raise CourseError(f"{folder} holds a model of type {kind!r}; this reads llama and qwen2")
    ours = read_settings(SETTINGS if kind == "llama" else QWEN2_SETTINGS, config)
    if ours["width"] % ours["heads"] and config.get("head_dim") is None:
        raise CourseError(f"hidden_size {ours['width']} does not divide into {ours['heads']} heads")
    # Since version 5 of transformers one setting holds both; published files have them apart.
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return DecoderConfig(
        **ours,
        kv_heads=config.get("num_key_value_heads") or ours["heads"],
        head_dim=config.get("head_dim"),
        rotary_base=float(rotary.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        rotary_scaling=_read_scaling(rotary),
        qkv_bias=kind == "qwen2",
    )


def _read_scaling(rotary: Mapping[str, Any]) -> Llama3Scaling | None:
    kind = rotary.get("rope_type") or rotary.get("type") or "default"
    if kind == "default":
        return None
    if kind != "llama3":
        raise CourseError(f"rotary positions are scaled by {kind!r}; supported are 'llama3' and none")
    return Llama3Scaling(**read_settings(SCALING, rotary))


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The published settings of our config, as Llama 3's own files have them, or Qwen2's where there are biases."""
    scaling = config.rotary_scaling
    written = {
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim or config.width // config.heads,
        "rope_theta": config.rotary_base,
        "rope_scaling": None if scaling is None else {"rope_type": "llama3"} | write_settings(SCALING, asdict(scaling)),
    }
    if config.qkv_bias:
        kind = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
        return kind | write_settings(QWEN2_SETTINGS, asdict(config)) | written
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    return kind | write_settings(SETTINGS, asdict(config)) | written
