"""The Q-Former: a few learned queries that ask a frozen image encoder what a language model will want to know.

(arXiv:2301.12597, section 3.1.) It is a BERT whose sequence begins with the queries. In every other block the queries,
and only they, also look at the image. Queries and words share the self-attention, where the task's mask decides
who sees whom, and have feed-forward networks of their own.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_03_blip2.model import huggingface
from lessons.lesson_03_blip2.model.config import QFormerConfig
from lessons.lesson_03_blip2.model.huggingface_names import qformer_table
from shared.attention import FULL_ATTENTION, Mask
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention


class QFormerBlock(nn.Module):
    """Look around, look at the image, think; each is added and then normed (post-norm, as in BERT: arXiv:1810.04805)."""

    def __init__(self, config: QFormerConfig, layer: int):
        super().__init__()
        norm = partial(nn.LayerNorm, config.width, eps=config.norm_eps)
        self.attention, self.attention_norm = Attention(config.width, config.heads), norm()
        looks = layer % config.cross_every == 0
        self.cross_attention = (
            Attention(config.width, config.heads, context_width=config.context_width) if looks else None
        )
        self.cross_attention_norm = norm() if looks else None
        self.mlp, self.mlp_norm = MLP(config.width, config.mlp_dim), norm()
        self.text_mlp = MLP(config.width, config.mlp_dim) if config.reads_text else None
        self.text_mlp_norm = norm() if config.reads_text else None

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        queries: int,
        context: Float[Tensor, "batch patches context_width"] | None,
        mask: Mask,
    ) -> Float[Tensor, "batch tokens width"]:
        x = self.exchange(x, mask)
        asking, words = x[:, :queries], x[:, queries:]
        if queries:
            if self.cross_attention is not None:
                asking = self.cross_attention_norm(asking + self.cross_attention(asking, context))
            asking = self.mlp_norm(asking + self.mlp(asking))
        if words.shape[1]:
            words = self.text_mlp_norm(words + self.text_mlp(words))
        return torch.cat([asking, words], dim=1)

    def exchange(self, x: Float[Tensor, "batch tokens width"], mask: Mask) -> Float[Tensor, "batch tokens width"]:
        """Self-attention, in which queries and words meet as far as the mask lets them."""
        return self.attention_norm(x + self.attention(x, mask=mask))


class QFormer(nn.Module):
    """[queries, text] in, the same places out, after every block. It owns neither the queries nor the words' vectors."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(QFormerBlock(config, layer) for layer in range(config.depth))
        self._initialize()

    def _initialize(self) -> None:
        """Draw each matrix so that signals keep their size (Glorot & Bengio 2010, eq. 16)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        queries: int,
        context: Float[Tensor, "batch patches context_width"] | None = None,
        mask: Mask = FULL_ATTENTION,
    ) -> Float[Tensor, "batch tokens width"]:
        """The vectors after the last block.

        queries  how many of the tokens, from the front, are queries: they look at `context`, the others are words
        context  the frozen encoder's tokens; text alone needs none

        Raises ValueError when queries have nothing to look at, or words meet a Q-Former that reads none.
        """
        if queries and context is None:
            raise ValueError(f"{queries} queries were given and no context; give them image features to look at")
        if x.shape[1] > queries and not self.config.reads_text:
            raise ValueError(
                f"{x.shape[1] - queries} text tokens were given to a Q-Former that reads none; set reads_text=True"
            )
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, queries, context, mask)
        return x

    @torch.no_grad()
    def cross_attention_maps(
        self, queries: Float[Tensor, "batch queries width"], context: Float[Tensor, "batch patches context_width"]
    ) -> list[Float[Tensor, "batch heads queries patches"]]:
        """Where each query looks in the image, one tensor of probabilities for each block that looks."""
        x, maps = self.norm(queries), []
        for block in self.blocks:
            if block.cross_attention is not None:
                maps.append(block.cross_attention.weights(block.exchange(x, FULL_ATTENTION), context))
            x = block(x, x.shape[1], context, FULL_ATTENTION)
        return maps

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "QFormer":
        """A published `Blip2QFormerModel`, in evaluation mode. Raises CourseError when the folder holds another model."""
        model = cls(huggingface.read_qformer(folder))
        load_weights(model, folder, qformer_table())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `Blip2QFormerModel` reads."""
        save_pretrained(folder, self, qformer_table(), huggingface.write_qformer(self.config))
