"""The vision encoder of the family: patches of images and videos of any resolution → tokens of the language model.

    patches [N, values] → embedded [N, width] → blocks → merger → tokens [N / merge², output_width]

All images and videos of a batch are one packed row. Attention stays within a frame, or within a window of it.
"""

from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_09_qwen_vl.model.config import VISION_ACTIVATIONS, VisionConfig
from lessons.lesson_09_qwen_vl.model.merger import Merger, vision_norm
from lessons.lesson_09_qwen_vl.model.patches import VisualInput, frame_index, patch_coordinates
from lessons.lesson_09_qwen_vl.model.window_attention import expand_to_patches, token_windows, window_order
from shared.attention import Mask
from shared.transformer import MLP, Attention, Block, Rotary, SwiGLU


class VisualFeatures(NamedTuple):
    """The encoder's output: the merged tokens, and those of each DeepStack layer."""

    tokens: Float[Tensor, "tokens width"]
    deep: list[Float[Tensor, "tokens width"]]


class LearnedPositions(nn.Module):
    """A square grid of learned vectors, resized to each image's grid by bilinear interpolation (Qwen3-VL).

    The corners of both grids coincide, so that position vectors depend on the place in the image, not on its size.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size * size, width) * 0.02)
        self.size = size

    def forward(self, grids: Int[Tensor, "items 3"], merge_size: int) -> Float[Tensor, "patches width"]:
        """Return the vector of every patch in merge order; all frames of a video have the same ones."""
        table = rearrange(self.weight, "(row column) width -> 1 width row column", row=self.size)
        parts = []
        for frames, rows, columns in grids.tolist():
            resized = F.interpolate(table, (rows, columns), mode="bilinear", align_corners=True)
            merged = rearrange(resized[0], "c (h mh) (w mw) -> (h w mh mw) c", mh=merge_size, mw=merge_size)
            parts.append(merged.repeat(frames, 1))
        return torch.cat(parts)


class VisionEncoder(nn.Module):
    """Patch embedding, blocks with 2-D rotary positions, and the merger."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        # A 3-D convolution whose stride is its kernel is a linear layer over the values of a patch.
        self.patch_embedding = nn.Linear(config.patch_values, config.width, bias=config.patch_bias)
        self.positions = LearnedPositions(config.grid_size, config.width) if config.grid_size else None
        self.rotary = Rotary(config.width // config.heads, base=config.rotary_base, axes=2)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.merger = Merger(config)
        self.deep_mergers = nn.ModuleList(Merger(config, norm_after_merge=True) for _ in config.deepstack_layers)

    def embed(self, visual: VisualInput) -> Float[Tensor, "patches width"]:
        """Project every patch and add its learned position, if there is one.

        Raises ValueError when patches have another number of values, or grids don't divide into tokens.
        """
        config = self.config
        if visual.patches.shape[-1] != config.patch_values:
            raise ValueError(
                f"patches have {visual.patches.shape[-1]} values, expected {config.patch_values}: {config.channels} "
                f"channels of {config.frames_per_patch} frames of {config.patch_size}×{config.patch_size} pixels"
            )
        if (visual.grids[:, 1:] % config.merge_size).any() or (visual.grids < 1).any():
            raise ValueError(
                f"grids are {visual.grids.tolist()}; expected at least one frame, and rows and columns that are "
                f"multiples of {config.merge_size}"
            )
        x = self.patch_embedding(visual.patches.to(self.patch_embedding.weight.dtype))
        return x if self.positions is None else x + self.positions(visual.grids, config.merge_size)

    def forward(self, visual: VisualInput) -> VisualFeatures:
        """Return the tokens of all images or videos, in reading order. Raises as `embed` does."""
        config, grids = self.config, visual.grids
        x = self.embed(visual)
        angles = self.rotary(patch_coordinates(grids, config.merge_size)[None])
        frames = frame_index(grids)
        full, inverse = Mask(segment_q=frames[None], segment_k=frames[None]), None
        masks = [full] * config.depth
        if config.window_size is not None:
            windows = token_windows(grids, config.merge_size, config.window_side)
            order, inverse = window_order(windows)
            # A frame's windows follow each other, so reordering leaves `frames` as it is.
            patch_order = expand_to_patches(order, config.merge_size**2)
            x, angles = x[patch_order], angles[:, patch_order]
            segments = windows[order].repeat_interleave(config.merge_size**2)[None]
            local = Mask(segment_q=segments, segment_k=segments)
            masks = [full if layer in config.full_attention_layers else local for layer in range(config.depth)]
        deep: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            x = block(x[None], mask=masks[layer], angles=angles)[0]
            if layer in config.deepstack_layers:
                deep.append(self.deep_mergers[len(deep)](x))
        tokens = [self.merger(x), *deep]
        if inverse is not None:
            tokens = [each[inverse] for each in tokens]
        return VisualFeatures(tokens[0], tokens[1:])


def _block(config: VisionConfig) -> Block:
    activation = VISION_ACTIVATIONS[config.activation]
    mlp: nn.Module
    if config.gated_mlp:
        mlp = SwiGLU(config.width, config.mlp_dim, bias=True, activation=activation)
    else:
        mlp = MLP(config.width, config.mlp_dim, activation=activation)
    return Block(Attention(config.width, config.heads), mlp, partial(vision_norm, config, config.width))
