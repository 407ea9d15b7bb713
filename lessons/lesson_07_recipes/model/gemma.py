"""Gemma (arXiv:2403.08295) and Gemma 2 (arXiv:2408.00118): the course's decoder with other settings.

Both differ from Llama in four settings: norms with a gain of 1 + w, GEGLU in place of SwiGLU, token embeddings times
√width, and an output layer that shares the embedding. Gemma 2 adds norms after attention and MLP, soft caps on
attention scores and logits, a window in every other layer, and another scale of the scores.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model import gemma_config_mapping
from shared import pretrained
from shared.attention import Mask
from shared.transformer import DecoderConfig

GEMMA_2B = DecoderConfig(
    vocab_size=256_000,
    width=2048,
    depth=18,
    heads=8,
    kv_heads=1,
    mlp_dim=16_384,
    head_dim=256,
    rotary_base=10_000.0,
    norm_eps=1e-6,
    tied=True,
    max_positions=8192,
    activation="gelu_pytorch_tanh",
    norm_offset=1.0,
    scaled_embedding=True,
)
"""The sizes of arXiv:2403.08295, table 1, where the MLP's two inner layers are counted together."""


def gemma_config(**changes: Any) -> DecoderConfig:
    """Return the config of a Gemma: Gemma 2B, with `changes` to its fields."""
    return replace(GEMMA_2B, **changes)


def gemma2_config(*, window: int = 4096, global_every: int = 2, **changes: Any) -> DecoderConfig:
    """Return the config of a Gemma 2: Gemma 2 2B (arXiv:2408.00118, table 1), with `changes` to its fields.

    window        number of latest tokens that a token attends to in a local layer
    global_every  every so many layers, one attends to all tokens

    Raises ValueError as `layer_windows` does.
    """
    parts: dict[str, Any] = {"post_norms": True, "attention_softcap": 50.0, "output_softcap": 30.0}
    sizes: dict[str, Any] = {"width": 2304, "depth": 26, "kv_heads": 4, "mlp_dim": 9216}
    config = replace(GEMMA_2B, **(parts | sizes | changes))
    scalar = config.width_per_head if config.query_scalar is None else config.query_scalar
    return replace(config, query_scalar=scalar, windows=layer_windows(config.depth, window, global_every))


def layer_windows(depth: int, window: int, global_every: int = 2) -> tuple[int | None, ...]:
    """Return the window of each layer: None in every `global_every`-th layer, which attends to all tokens.

    Gemma 2 begins with a local layer and alternates (`global_every` 2); Gemma 3 has five local layers before each
    global one (6, arXiv:2503.19786, section 2). With 1, every layer is global.

    Raises ValueError when `window` or `global_every` is less than 1.
    """
    if window < 1 or global_every < 1:
        raise ValueError(f"window is {window} and global_every is {global_every}; expected at least 1 of each")
    # exercise 7.8: the window of each layer
    return tuple(None if (layer + 1) % global_every == 0 else window for layer in range(depth))
    # end exercise


def layer_mask_matrices(
    depth: int, window: int, tokens: int, global_every: int = 2
) -> Bool[Tensor, "depth tokens tokens"]:
    """Return the dense mask of each layer, for a figure: True where the key (column) is visible to the query (row)."""
    windows = layer_windows(depth, window, global_every)
    return torch.stack([Mask(causal=True, window=each).visible(tokens, tokens)[0] for each in windows])


def llama_and_gemma2(llama: DecoderConfig, window: int, **changes: Any) -> tuple[LanguageModel, "Gemma"]:
    """Build a Llama-like and a Gemma-2-like decoder of the same sizes, for a comparison at equal parameters.

    llama    config of the Llama-like decoder; its output layer shares the embedding here, as in Gemma
    window   number of latest tokens that a token attends to in the local layers of the Gemma-2-like decoder
    changes  to other fields of the Gemma-2-like config

    Both have equally many weights but for Gemma 2's norms after attention and MLP: 2 · width more per layer. Gemma 2's
    soft caps were chosen for large models; in small ones, scores and logits hardly come near to them.
    """
    llama = replace(llama, tied=True)
    names = ("vocab_size", "width", "depth", "heads", "kv_heads", "mlp_dim", "head_dim", "rotary_base", "max_positions")
    sizes = {name: getattr(llama, name) for name in names} | {"query_scalar": llama.width_per_head}
    return LanguageModel(llama), Gemma(gemma2_config(window=window, **(sizes | changes)))


class Gemma(LanguageModel):
    """A decoder that reads and writes folders of the published classes `GemmaForCausalLM` and `Gemma2ForCausalLM`.

    Its config is one of `gemma_config` or `gemma2_config`.
    """

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Gemma":
        """Load the model of a published folder, in evaluation mode.

        Raises CourseError when the folder holds another kind of model, or weights that do not fit its config.
        """
        config = gemma_config_mapping.parse_gemma_config(pretrained.read_config(folder), folder)
        model = cls(config)
        pretrained.load_weights(model, folder, gemma_config_mapping.gemma_weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write `config.json` and `model.safetensors` in the published class's layout; add `settings` to the config.

        Raises CourseError for a decoder that is neither a Gemma nor a Gemma 2.
        """
        config = gemma_config_mapping.write_gemma_config(self.config)
        pretrained.save_pretrained(
            folder, self, gemma_config_mapping.gemma_weight_names(self.config), config | settings
        )
