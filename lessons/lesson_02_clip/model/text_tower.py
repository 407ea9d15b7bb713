"""The reader: a transformer over a caption's tokens (arXiv:2103.00020, section 2.4)."""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_02_clip.model import huggingface
from lessons.lesson_02_clip.model.config import ACTIVATIONS, TextEncoderConfig
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block


class TextEncoder(nn.Module):
    """Tokens with learned positions → transformer blocks → norm → the vector of one token.

    Causal, the end token is the only one that has seen the whole caption, so it speaks for it; what is padded on behind
    it changes nothing. Not causal, everything counts, padding too, and captions must be padded as in training.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.context, config.width))
        self.blocks = nn.ModuleList(self._block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self._initialize()

    @staticmethod
    def _block(config: TextEncoderConfig) -> Block:
        return Block(
            Attention(config.width, config.heads),
            MLP(config.width, config.mlp_dim, activation=ACTIVATIONS[config.activation]),
            partial(nn.LayerNorm, config.width, eps=config.norm_eps),
        )

    def _initialize(self) -> None:
        """As in CLIP's released code: normal, and narrower where a matrix adds to the residual stream of a deep tower."""
        width, depth = self.config.width, self.config.depth
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self.blocks:
            attention, mlp = block.attention, block.mlp
            for layer in (attention.query, attention.key, attention.value):
                nn.init.normal_(layer.weight, std=width**-0.5)
            nn.init.normal_(mlp.up.weight, std=(2 * width) ** -0.5)
            for layer in (attention.output, mlp.down):
                nn.init.normal_(layer.weight, std=width**-0.5 * (2 * depth) ** -0.5)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def features(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Every token after the last norm. Raises ValueError for a caption longer than the positions reach."""
        length = tokens.shape[1]
        if length > self.config.context:
            raise ValueError(
                f"captions of {length} tokens do not fit into a context of {self.config.context}; "
                "cut them where they are tokenized"
            )
        x = self.embedding(tokens) + self.positions[:length]
        mask = Mask(causal=self.config.causal)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x)

    def pooled_place(self, tokens: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch"]:
        """Which token of each row speaks for its caption."""
        if self.config.pooling == "last":
            return torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
        return end_of_caption(tokens, self.config.end_token)

    def forward(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch width"]:
        """One vector a caption. Raises as `features` does."""
        x = self.features(tokens)
        if self.config.pooling == "mean":
            return x.mean(dim=1)
        return x[torch.arange(len(x), device=x.device), self.pooled_place(tokens)]

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "TextEncoder":
        """A published `CLIPTextModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, lacks weights or holds too many.
        """
        config = huggingface.read_text_config(folder)
        tower = cls(config).to(dtype)
        load_weights(tower, folder, huggingface.text_table())
        return tower.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a tower that has no published class."""
        save_pretrained(folder, self, huggingface.text_table(), huggingface.write_text_config(self.config))


def end_of_caption(tokens: Int[Tensor, "batch tokens"], end_token: int | None) -> Int[Tensor, "batch"]:
    """The place of the first end token in each row; without its number, the place of the row's largest number.

    (In CLIP's vocabulary the end has the largest number of all, and its first code found it so.)
    """
    # exercise 2.5: the token that speaks for its caption
    # Padding may repeat the end token: argmax gives the first of equals.
    if end_token is None:
        return tokens.argmax(dim=1)
    return (tokens == end_token).int().argmax(dim=1)
    # end exercise
