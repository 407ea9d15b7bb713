"""InternViT: a Vision Transformer with layer scale, and without a norm at its end (arXiv:2312.14238).

Shapes: tiles [tiles, channels, side_px, side_px] → features [tiles, rows, columns, width].
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_01_vit.model.patches import PatchEmbedding, patch_grid, whole_patches
from lessons.lesson_01_vit.model.positions import interpolate_positions
from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS
from lessons.lesson_10_internvl.model.config import VisionConfig
from shared.transformer import MLP, Attention, Block, RMSNorm, Scores
from shared.transformer.normalization import rms_norm


class JointHeadNorm(nn.Module):
    """RMSNorm over the values of all heads of a token: [batch, heads, tokens, head_dim] → the same shape.

    Qwen3 normalizes each head by itself; InternViT normalizes the queries, and the keys, before they are split into
    heads. The gain has one value per head and dimension.
    """

    def __init__(self, heads: int, head_dim: int, eps: float = 1e-6):
        super().__init__()
        self.heads, self.eps = heads, eps
        self.weight = nn.Parameter(torch.ones(heads * head_dim))

    def forward(self, x: Float[Tensor, "batch heads tokens head_dim"]) -> Float[Tensor, "batch heads tokens head_dim"]:
        joined = rms_norm(x.transpose(1, 2).flatten(2), self.weight, self.eps)
        return joined.unflatten(2, (self.heads, -1)).transpose(1, 2)


class InternViT(nn.Module):
    """Encode tiles: patches with learned positions after a class token, then transformer blocks."""

    positions: nn.Parameter | None

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embedding = PatchEmbedding(config.patch_size, config.channels, width)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.side**2 + 1, width) * 0.02) if config.positions else None
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, config.norm_eps) if config.last_norm else None

    def grid(self, tiles: Float[Tensor, "tiles channels height width_px"]) -> tuple[int, int]:
        """Return rows and columns of patches. Raises ValueError for sides that do not divide into patches.

        Tiles of `image_size` need not divide: what is left is cut off.
        """
        side = self.config.image_size
        own_size = tuple(tiles.shape[-2:]) == (side, side)
        return (self.config.side, self.config.side) if own_size else patch_grid(tiles, self.config.patch_size)

    def embed(self, tiles: Float[Tensor, "tiles channels height width_px"]) -> Float[Tensor, "tiles tokens width"]:
        """Return the class token and the patches with their positions. Raises as `grid` does."""
        grid = self.grid(tiles)
        patches = self.patch_embedding(whole_patches(tiles, grid, self.config.patch_size))
        tokens = torch.cat([self.class_token.expand(len(tiles), 1, -1), patches], dim=1)
        if self.positions is None:
            return tokens
        own_grid = (self.config.side, self.config.side)
        return tokens + torch.cat([self.positions[:1], interpolate_positions(self.positions[1:], own_grid, grid)])

    def hidden_states(
        self, tiles: Float[Tensor, "tiles channels height width_px"]
    ) -> list[Float[Tensor, "tiles tokens width"]]:
        """Return depth + 1 states: the input of the first block and the output of each, before any last norm."""
        states = [self.embed(tiles)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states

    def forward(
        self, tiles: Float[Tensor, "tiles channels height width_px"], layer: int = -1
    ) -> Float[Tensor, "tiles rows columns width"]:
        """Return one hidden state of the patches as a grid, without the class token; −1 is the encoder's output.

        Only the output −1 passes through the last norm, if there is one. Raises ValueError as `grid` does.
        """
        x = self.embed(tiles)
        # The blocks after the chosen state are not needed.
        depth = len(self.blocks) + 1 + layer if layer < 0 else layer
        for block in self.blocks[:depth]:
            x = block(x)
        if layer == -1 and self.norm is not None:
            x = self.norm(x)
        return x[:, 1:].unflatten(1, self.grid(tiles))


def _block(config: VisionConfig) -> Block:
    scores = Scores(qk_norm=partial(JointHeadNorm, config.heads) if config.qk_norm else None)
    return Block(
        Attention(config.width, config.heads, bias=(config.qkv_bias, True), scores=scores),
        MLP(config.width, config.mlp_dim, activation=VISION_ACTIVATIONS[config.activation]),
        partial(RMSNorm if config.norm == "rms" else nn.LayerNorm, config.width, config.norm_eps),
        layer_scale=config.layer_scale,
    )
