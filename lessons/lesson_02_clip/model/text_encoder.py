"""The text encoder: a transformer over the tokens of a caption (arXiv:2103.00020, section 2.4)."""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_02_clip.model import config_mapping
from lessons.lesson_02_clip.model.config import TextEncoderConfig
from lessons.lesson_02_clip.model.weight_names import text_weight_names
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block
from shared.transformer.block import ACTIVATIONS


class TextEncoder(nn.Module):
    """Tokens with learned positions → transformer blocks → LayerNorm → the output of one token.

    With causal attention, only the end token attends to the whole caption, so its output represents the caption, and
    padding after it has no effect. Without, all tokens count, padding too: captions must be padded as in training.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.blocks = nn.ModuleList(
            Block(
                Attention(config.width, config.heads),
                MLP(config.width, config.mlp_dim, activation=ACTIVATIONS[config.activation]),
                partial(nn.LayerNorm, config.width, eps=config.norm_eps),
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self._initialize()

    def _initialize(self) -> None:
        """Draw normal weights as in CLIP's released code, smaller in layers that add to the residual stream."""
        width, depth = self.config.width, self.config.depth
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self.blocks:
            assert isinstance(block, Block) and isinstance(block.mlp, MLP)
            attention, mlp = block.attention, block.mlp
            for layer in (attention.query, attention.key, attention.value):
                nn.init.normal_(layer.weight, std=width**-0.5)
            nn.init.normal_(mlp.up.weight, std=(2 * width) ** -0.5)
            for layer in (attention.output, mlp.down):
                nn.init.normal_(layer.weight, std=width**-0.5 * (2 * depth) ** -0.5)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def features(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Return every token after the last norm. Raises ValueError for a caption longer than the context."""
        length = token_ids.shape[1]
        if length > self.config.context_length:
            raise ValueError(
                f"captions of {length} tokens do not fit into a context of {self.config.context_length}; "
                "truncate them in the tokenizer"
            )
        x = self.embedding(token_ids) + self.positions[:length]
        mask = Mask(causal=self.config.causal)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x)

    def pooled_index(self, token_ids: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch"]:
        """Return the index of the token whose output represents the caption, for each row."""
        if self.config.pooling == "last":
            return torch.full_like(token_ids[:, 0], token_ids.shape[1] - 1)
        return end_token_index(token_ids, self.config.end_token)

    def forward(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch width"]:
        """Return one vector per caption. Raises as `features` does."""
        x = self.features(token_ids)
        if self.config.pooling == "mean":
            return x.mean(dim=1)
        return x[torch.arange(len(x), device=x.device), self.pooled_index(token_ids)]

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "TextEncoder":
        """Load a published `CLIPTextModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        model = cls(config_mapping.read_text_config(folder)).to(dtype)
        load_weights(model, folder, text_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, text_weight_names(), config_mapping.write_text_config(self.config))


def end_token_index(token_ids: Int[Tensor, "batch tokens"], end_token: int | None) -> Int[Tensor, "batch"]:
    """Return the index of the first end token in each row; if `end_token` is None, of the row's largest id.

    (The end token has the largest id in CLIP's vocabulary, and CLIP's first code found it that way.)
    """
    # exercise 2.5: the token that represents the caption
    # Padding may repeat the end token: argmax returns the first of equal values.
    if end_token is None:
        return token_ids.argmax(dim=1)
    return (token_ids == end_token).int().argmax(dim=1)
    # end exercise
