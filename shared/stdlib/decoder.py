"""A small Llama in pure Python: lesson 0's language model, for lessons that freeze it or connect it to images."""

import math
from random import Random

from shared.stdlib.functional import concatenate, silu, softmax
from shared.stdlib.nn import Embedding, Linear, Module, RMSNorm
from shared.stdlib.tensor import Tensor

NORM_EPS = 1e-5


def rotate(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotate queries or keys [batch, heads, tokens, head_dim] by their positions (arXiv:2104.09864)."""
    tokens, head_dim = x.shape[-2:]
    half = head_dim // 2
    angles = [position * base ** (-2 * i / head_dim) for position in range(tokens) for i in range(half)]
    cos, sin = (Tensor(list(map(function, angles)), (tokens, half)) for function in (math.cos, math.sin))
    first, second = x[:, :, :, :half], x[:, :, :, half:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class CausalSelfAttention(Module):
    """Attention of each token to itself and the tokens before it, with rotary positions and without biases."""

    def __init__(self, width: int, heads: int, random: Random):
        self.heads = heads
        self.query, self.key, self.value, self.output = (Linear(width, width, random, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shape = batch, tokens, self.heads, width // self.heads
        query, key, value = (part(x).reshape(*shape).permute(0, 2, 1, 3) for part in (self.query, self.key, self.value))
        mask = Tensor([0.0 if k <= q else -math.inf for q in range(tokens) for k in range(tokens)], (tokens, tokens))
        scores = rotate(query) @ rotate(key).transpose() * (1.0 / math.sqrt(shape[-1]))
        return self.output((softmax(scores + mask) @ value).permute(0, 2, 1, 3).reshape(batch, tokens, width))


class SwiGLU(Module):
    """down(silu(gate(x)) · up(x)), applied to each token separately (arXiv:2002.05202, eq. 6)."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.gate, self.up = Linear(width, mlp_dim, random, bias=False), Linear(width, mlp_dim, random, bias=False)
        self.down = Linear(mlp_dim, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_dim: int, random: Random):
        self.attention_norm, self.attention = RMSNorm(width, NORM_EPS), CausalSelfAttention(width, heads, random)
        self.mlp_norm, self.mlp = RMSNorm(width, NORM_EPS), SwiGLU(width, mlp_dim, random)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(Module):
    """Predict the next token at every position of rows of equal length."""

    def __init__(self, vocab_size: int, width: int, depth: int, heads: int, mlp_dim: int, random: Random):
        self.embedding = Embedding(vocab_size, width, random)
        self.blocks = [Block(width, heads, mlp_dim, random) for _ in range(depth)]
        self.norm = RMSNorm(width, NORM_EPS)
        self.output = Linear(width, vocab_size, random, bias=False)

    def embed(self, rows: list[list[int]]) -> Tensor:
        """Return the embeddings of token ids: [rows, tokens, width]."""
        x = self.embedding([token_id for row in rows for token_id in row])
        return x.reshape(len(rows), len(rows[0]), x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the token after each token [rows, tokens, vocabulary], from embeddings."""
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))
