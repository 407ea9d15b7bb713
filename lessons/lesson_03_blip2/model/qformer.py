"""The Q-Former: learned queries that extract from an image what a language model needs (arXiv:2301.12597, section 3.1).

It is a BERT whose sequence begins with the queries. Queries and text share the self-attention, where the task's mask
decides which tokens attend to which, and have separate MLPs. In every other block the queries also attend to the image.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_03_blip2.model import config_mapping
from lessons.lesson_03_blip2.model.config import QFormerConfig
from lessons.lesson_03_blip2.model.weight_names import qformer_weight_names
from shared.attention import FULL_ATTENTION, Mask
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention


class QFormerBlock(nn.Module):
    """Apply self-attention, cross-attention of the queries and an MLP; each is added, then normalized, as in BERT.

    [batch, queries + text, width] → the same; arXiv:1810.04805.
    """

    def __init__(self, config: QFormerConfig, layer: int):
        super().__init__()
        norm = partial(nn.LayerNorm, config.width, eps=config.norm_eps)
        self.attention, self.attention_norm = Attention(config.width, config.heads), norm()
        has_cross_attention = layer % config.cross_attention_frequency == 0
        self.cross_attention = (
            Attention(config.width, config.heads, context_width=config.context_width) if has_cross_attention else None
        )
        self.cross_attention_norm = norm() if has_cross_attention else None
        self.mlp, self.mlp_norm = MLP(config.width, config.mlp_dim), norm()
        self.text_mlp = MLP(config.width, config.mlp_dim) if config.text_input else None
        self.text_mlp_norm = norm() if config.text_input else None

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        queries: int,
        context: Float[Tensor, "batch patches context_width"] | None,
        mask: Mask,
    ) -> Float[Tensor, "batch tokens width"]:
        x = self.self_attend(x, mask)
        query_states, text_states = x[:, :queries], x[:, queries:]
        if queries:
            if self.cross_attention is not None and self.cross_attention_norm is not None:
                query_states = self.cross_attention_norm(query_states + self.cross_attention(query_states, context))
            query_states = self.mlp_norm(query_states + self.mlp(query_states))
        if self.text_mlp is not None and self.text_mlp_norm is not None and text_states.shape[1]:
            text_states = self.text_mlp_norm(text_states + self.text_mlp(text_states))
        return torch.cat([query_states, text_states], dim=1)

    def self_attend(self, x: Float[Tensor, "batch tokens width"], mask: Mask) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens after the self-attention that queries and text share."""
        return self.attention_norm(x + self.attention(x, mask=mask))


class QFormer(nn.Module):
    """Map embeddings of [queries, text] to their final states; the embeddings belong to the model around it."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(QFormerBlock(config, layer) for layer in range(config.depth))
        self._initialize()

    def _initialize(self) -> None:
        """Draw weight matrices that keep the scale of their input (Glorot & Bengio 2010, eq. 16), and zero biases."""
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
        """Return the states after the last block.

        queries  number of tokens, from the front, that are queries and attend to `context`; the rest is text
        context  features of the frozen vision encoder; not needed without queries

        Raises ValueError for queries without context, and for text in a Q-Former without text input.
        """
        if queries and context is None:
            raise ValueError(f"{queries} queries were given and no context; give them image features to attend to")
        if x.shape[1] > queries and not self.config.text_input:
            raise ValueError(
                f"{x.shape[1] - queries} text tokens were given to a Q-Former without text input; set text_input=True"
            )
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, queries, context, mask)
        return x

    @torch.no_grad()
    def cross_attention_maps(
        self, queries: Float[Tensor, "batch queries width"], context: Float[Tensor, "batch patches context_width"]
    ) -> list[Float[Tensor, "batch heads queries patches"]]:
        """Return the queries' attention probabilities over the image, one tensor per block with cross-attention."""
        x, maps = self.norm(queries), []
        for block in self.blocks:
            if isinstance(block, QFormerBlock) and block.cross_attention is not None:
                maps.append(block.cross_attention.weights(block.self_attend(x, FULL_ATTENTION), context))
            x = block(x, x.shape[1], context, FULL_ATTENTION)
        return maps

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "QFormer":
        """Load a published `Blip2QFormerModel` in evaluation mode. Raises CourseError for another model."""
        model = cls(config_mapping.read_qformer(folder))
        load_weights(model, folder, qformer_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder that `Blip2QFormerModel` loads."""
        save_pretrained(folder, self, qformer_weight_names(), config_mapping.write_qformer(self.config))
