"""OPT (arXiv:2205.01068): the language model inside BLIP-2's public weights.

GPT-3's architecture: learned positions, LayerNorm before each branch, biases everywhere, ReLU. What one can ask of it is what
one can ask of the course's own decoder, so that `shared.transformer.generate` writes with either.
"""

from functools import partial
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_03_blip2.model import huggingface
from lessons.lesson_03_blip2.model.config import OPTConfig
from lessons.lesson_03_blip2.model.huggingface_names import opt_table
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block, Decoder, KVCache

# The first two rows of its positions belong to no place: a leftover of how its authors numbered padding.
OFFSET = 2


class OPT(Decoder):
    """A decoder with other parts: what reads, caches and writes is inherited, what a block is made of is not."""

    def __init__(self, config: OPTConfig):
        nn.Module.__init__(self)
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.positions + OFFSET, config.width)
        self.blocks = nn.ModuleList(self._block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, config.vocab_size, bias=False)
        self.output.weight = self.embedding.weight
        self._initialize()

    @staticmethod
    def _block(config: OPTConfig) -> Block:
        return Block(
            Attention(config.width, config.heads),
            MLP(config.width, config.mlp_dim, activation=F.relu),
            partial(nn.LayerNorm, config.width),
        )

    def features(
        self,
        tokens: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The normed vectors from which `output` makes the logits; arguments as in `Decoder.forward`.

        Raises ValueError when both or neither of tokens and embeddings are given, or the text outgrows the positions.
        """
        if (tokens is None) == (embeddings is None):
            both = "both were" if tokens is not None else "neither was"
            raise ValueError(f"give the decoder either tokens or embeddings; {both} given")
        x = self.embedding(tokens) if embeddings is None else embeddings
        if positions is None:
            positions = self._count(x, segments, cache)
        if int(positions.max()) >= self.config.positions:
            raise ValueError(
                f"a sequence reaches position {int(positions.max())}; this OPT has learned {self.config.positions}"
            )
        x = x + self.positions(positions + OFFSET)
        if cache is None:
            mask = Mask(causal=True, segment_q=segments, segment_k=segments)
        else:
            mask = cache.place(x.shape[1], segments)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask=mask, cache=None if cache is None else cache[layer])
        return self.norm(x)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "OPT":
        """A published `OPTForCausalLM`, in evaluation mode. Raises CourseError when the folder holds another model."""
        model = cls(huggingface.read_opt(folder))
        load_weights(model, folder, opt_table())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `OPTForCausalLM` reads."""
        save_pretrained(folder, self, opt_table(), huggingface.write_opt(self.config))
