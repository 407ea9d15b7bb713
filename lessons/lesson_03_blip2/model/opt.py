"""OPT (arXiv:2205.01068), the language model in BLIP-2's public weights, as a configuration of the shared decoder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.errors import CourseError
from shared.pretrained import (
    Derived,
    Fixed,
    Rename,
    Row,
    Rule,
    Setting,
    Tie,
    WeightNames,
    load_weights,
    read_config,
    read_settings,
    require_same,
    save_pretrained,
    with_prefix,
    write_settings,
)
from shared.transformer import Decoder, DecoderConfig


def opt_config(
    vocab_size: int = 50_272,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_dim: int = 3072,
    max_positions: int = 2048,
) -> DecoderConfig:
    """Return the config of an OPT decoder (arXiv:2205.01068, table 1); the default sizes are OPT-125M's.

    OPT has GPT-3's architecture: learned positions, LayerNorm before attention and MLP, biases, ReLU. Two rows before
    the vector of position 0 are unused.
    """
    return DecoderConfig(
        vocab_size,
        width,
        depth,
        heads,
        heads,
        mlp_dim,
        tied=True,
        bias=True,
        positions="learned",
        max_positions=max_positions,
        position_offset=2,
        norm="layer",
        activation="relu",
    )


def is_opt(config: DecoderConfig) -> bool:
    """Return whether a decoder is an OPT and not a Llama."""
    return config.positions == "learned"


class OPT(Decoder):
    """A decoder that reads and writes folders of the published class `OPTForCausalLM`.

    Its config is one of `opt_config`; every other method is `Decoder`'s.
    """

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "OPT":
        """Load a published `OPTForCausalLM` in evaluation mode. Raises CourseError for another model."""
        model = cls(parse_opt_config(read_config(folder, "opt")))
        load_weights(model, folder, opt_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `OPTForCausalLM` loads. Raises CourseError for a decoder that is not an OPT."""
        save_pretrained(folder, self, opt_weight_names(), write_opt_config(self.config))


# ── Published settings and weight names ───────────────────────────────────────────────────────────────────────────────

OPT_SETTINGS: list[Row] = [
    Setting("vocab_size", "vocab_size", 50_272),
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("ffn_dim", "mlp_dim", 3072),
    Setting("max_position_embeddings", "max_positions", 2048),
    Fixed("activation_function", "relu"),
    # OPT-350M, which differs in these, is not supported.
    Fixed("do_layer_norm_before", True),
    Fixed("_remove_final_layer_norm", False),
    Fixed("enable_bias", True),
    Fixed("layer_norm_elementwise_affine", True),
    Fixed("tie_word_embeddings", True),
    Derived("word_embed_proj_dim", lambda fields: fields["width"]),
]
OPT_DECODER: list[Rule] = [
    Rename("embed_tokens.weight", "embedding.weight"),
    Rename("embed_positions.weight", "position_embedding.weight"),
    Rename("final_layer_norm.{leaf}", "norm.{leaf}"),
    *with_prefix(
        "layers.{n}.",
        "blocks.{n}.",
        [
            Rename("self_attn.q_proj.{leaf}", "attention.query.{leaf}"),
            Rename("self_attn.k_proj.{leaf}", "attention.key.{leaf}"),
            Rename("self_attn.v_proj.{leaf}", "attention.value.{leaf}"),
            Rename("self_attn.out_proj.{leaf}", "attention.output.{leaf}"),
            Rename("self_attn_layer_norm.{leaf}", "attention_norm.{leaf}"),
            Rename("fc1.{leaf}", "mlp.up.{leaf}"),
            Rename("fc2.{leaf}", "mlp.down.{leaf}"),
            Rename("final_layer_norm.{leaf}", "mlp_norm.{leaf}"),
        ],
    ),
]


def parse_opt_config(config: Mapping[str, Any]) -> DecoderConfig:
    """Return the config of published OPT settings. Raises CourseError for OPT-350M."""
    sizes = read_settings(OPT_SETTINGS, config)
    if sizes["width"] % sizes["heads"]:
        raise CourseError(f"hidden_size {sizes['width']} does not divide into {sizes['heads']} num_attention_heads")
    return opt_config(**sizes)


def write_opt_config(config: DecoderConfig) -> dict[str, Any]:
    """Return the published settings of an OPT. Raises CourseError for a decoder that is not an OPT."""
    settings = write_settings(OPT_SETTINGS, asdict(config))
    require_same(config, parse_opt_config(settings))
    return {"model_type": "opt", "architectures": ["OPTForCausalLM"], "word_embed_proj_dim": config.width, **settings}


def opt_weight_names() -> WeightNames:
    """Return the weight names of `OPTForCausalLM`; its oldest files lack the prefix `model.`."""
    return WeightNames(
        with_prefix("model.decoder.", "", OPT_DECODER),
        also_read=with_prefix("decoder.", "", OPT_DECODER),
        ties=[Tie("lm_head.weight", "model.decoder.embed_tokens.weight")],
    )
