"""The Vision Transformer (arXiv:2010.11929), with registers, rotary positions and layer scale of later work.

Shapes: images [batch, channels, height, width_px] → tokens [batch, tokens, width] → logits [batch, classes].
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model import config_mapping
from lessons.lesson_01_vit.model.config import VisionTransformerConfig
from lessons.lesson_01_vit.model.patches import PatchEmbedding, patch_grid, whole_patches
from lessons.lesson_01_vit.model.positions import interpolate_positions, patch_coordinates, sine_cosine_positions
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block, Rotary, SwiGLU
from shared.transformer.block import ACTIVATIONS

# Some tens of patches per axis need lower frequencies than thousands of words (arXiv:2403.13298, section 3.2).
ROTARY_BASE = 100.0


class VisionTransformer(nn.Module):
    """Patches → tokens with positions → transformer blocks → LayerNorm → pooled vector → head.

    The sequence is [class token, distillation token, registers, patches in row-major order], each where it exists.
    Images of `image_size` and of any size that divides into patches are accepted; learned positions are resized to
    their grid.
    """

    positions: Tensor | None

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        self.config = config
        width = config.width

        self.patch_embedding = PatchEmbedding(config.patch_size, config.channels, width, bias=config.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(width)) if config.class_token else None
        self.distillation_token = nn.Parameter(torch.zeros(width)) if config.distillation_token else None
        self.registers = nn.Parameter(torch.zeros(config.registers, width)) if config.registers else None
        self.mask_token = nn.Parameter(torch.zeros(width)) if config.mask_token else None
        match config.positions:
            case "learned":
                rows, columns = config.grid
                self.positions = nn.Parameter(torch.zeros(config.prefix_positions + rows * columns, width))
            case "sine-cosine":
                fixed = sine_cosine_positions(config.grid, width)
                self.register_buffer("positions", torch.cat([torch.zeros(config.prefix_positions, width), fixed]))
            case _:
                self.positions = None
        rotary = config.positions == "rotary"
        self.rotary = Rotary(width // config.heads, base=ROTARY_BASE, axes=2) if rotary else None

        self.blocks = nn.ModuleList(transformer_block(config, layer) for layer in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.pooler = nn.Linear(width, width) if config.pooler else None
        self.attention_pooling = AttentionPooling(config) if config.pooling == "attention" else None
        self.head = nn.Linear(width, config.classes) if config.classes else None
        self._initialize()

        # Created last: the order of parameters and random draws determines the trained weights to the last bit.
        self.pre_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else None
        self.distillation_head = None
        if config.distillation_token and config.classes:
            self.distillation_head = nn.Linear(width, config.classes)
            nn.init.normal_(self.distillation_head.weight, std=0.02)
            nn.init.zeros_(self.distillation_head.bias)

    def _initialize(self) -> None:
        """Draw Xavier-uniform weights, zero biases and small normal tokens, as in the original code of ViT and MAE."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (self.class_token, self.distillation_token, self.registers, self.mask_token, self.positions):
            if isinstance(token, nn.Parameter):
                nn.init.normal_(token, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    # ── From images to a sequence of tokens ───────────────────────────────────────────────────────────────────────

    def _grid(self, images: Float[Tensor, "batch channels height width_px"]) -> tuple[int, int]:
        """Return rows and columns of patches. Raises ValueError as `embed_patches` does."""
        own_size = tuple(images.shape[-2:]) == self.config.image_sides
        return self.config.grid if own_size else patch_grid(images, self.config.patch_size)

    def embed_patches(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        masked: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch patches width"]:
        """Project patches and add their positions; where `masked`, the mask token replaces the projected patch.

        Raises ValueError for sides that are no multiples of the patch, except those of `image_size`, and for `masked`
        in a model without mask token.
        """
        grid = self._grid(images)
        tokens = self.patch_embedding(whole_patches(images, grid, self.config.patch_size))
        if masked is not None:
            if self.mask_token is None:
                raise ValueError("this model has no mask token to replace patches; set mask_token=True in its config")
            tokens = torch.where(masked[..., None], self.mask_token, tokens)
        if self.positions is not None:
            positions = self.positions[self.config.prefix_positions :]
            tokens = tokens + interpolate_positions(positions, self.config.grid, grid, antialias=self.config.antialias)
        return F.dropout(tokens, self.config.dropout, self.training)

    def add_prefix(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch tokens width"]:
        """Prepend the class and distillation token with their positions, then the registers, which have none."""
        tokens: list[Tensor] = [token for token in (self.class_token, self.distillation_token) if token is not None]
        prefix: list[Tensor] = [torch.stack(tokens)] if tokens else []
        if prefix and self.positions is not None:
            prefix = [prefix[0] + self.positions[: len(tokens)]]
        if self.registers is not None:
            prefix.append(self.registers)
        return torch.cat([*(part.expand(patches.shape[0], -1, -1) for part in prefix), patches], dim=1)

    def angles(self, coordinates: Int[Tensor, "batch patches 2"]) -> Float[Tensor, "batch tokens half_head_dim"] | None:
        """Return the rotary angles of all tokens from the patches' (row, column); prefix tokens are not rotated."""
        if self.rotary is None:
            return None
        origin = coordinates.new_zeros(coordinates.shape[0], self.config.prefix_tokens, 2)
        return self.rotary(torch.cat([origin, coordinates], dim=1))

    def embed(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        masked: Bool[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "1 tokens half_head_dim"] | None]:
        """Return the whole sequence of tokens and its rotary angles (None without). Raises as `embed_patches` does."""
        tokens = self.add_prefix(self.embed_patches(images, masked))
        grid = self._grid(images)
        return tokens, self.angles(patch_coordinates(grid, images.device)[None])

    # ── From tokens to the output ─────────────────────────────────────────────────────────────────────────────────

    def encode(
        self, tokens: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "#batch tokens half_head_dim"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        """Apply the transformer (eq. 2–4): every block, then the last norm."""
        if self.pre_norm is not None:
            tokens = self.pre_norm(tokens)
        for block in self.blocks:
            tokens = block(tokens, angles=angles)
        return self.norm(tokens)

    def features(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        masked: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return every token after the last norm, prefix tokens first. Raises as `embed_patches` does."""
        return self.encode(*self.embed(images, masked))

    def hidden_states(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> list[Float[Tensor, "batch tokens width"]]:
        """Return depth + 1 states: the input of the first block and the output of each block, before the last norm."""
        tokens, angles = self.embed(images)
        states = [tokens if self.pre_norm is None else self.pre_norm(tokens)]
        for block in self.blocks:
            states.append(block(states[-1], angles=angles))
        return states

    def pool(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
        """Reduce the tokens of `features` to one vector per image."""
        if self.attention_pooling is not None:
            return self.attention_pooling(tokens[:, self.config.prefix_tokens :])
        if self.config.pooling == "mean":
            return tokens[:, self.config.prefix_tokens :].mean(dim=1)
        return tokens[:, 0] if self.pooler is None else torch.tanh(self.pooler(tokens[:, 0]))

    def head_logits(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
        """Return the logits of the class head and of the distillation head, for DeiT's loss.

        Raises ValueError for a model without a distillation head.
        """
        if self.head is None or self.distillation_head is None:
            raise ValueError(
                "this model has no distillation head; set distillation_token=True and classes in its config"
            )
        tokens = self.features(images)
        return self.head(tokens[:, 0]), self.distillation_head(tokens[:, 1])

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch outputs"]:
        """Return one logit per class, or the pooled vector if there is no head. Raises as `embed_patches` does."""
        if self.distillation_head is not None:
            return torch.stack(self.head_logits(images)).mean(dim=0)  # DeiT averages its heads (arXiv:2012.12877, § 4)
        pooled = self.pool(self.features(images))
        return pooled if self.head is None else self.head(pooled)

    @torch.no_grad()
    def attention_maps(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """Return each block's attention probabilities; each row is one query token's distribution over all tokens."""
        _, angles = self.embed(images)
        maps = []
        for block, state in zip(self.blocks, self.hidden_states(images)[:-1], strict=True):
            assert isinstance(block, Block)
            maps.append(block.attention.weights(block.attention_norm(state), angles=angles))
        return maps

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "VisionTransformer":
        """Load a published ViT, DeiT or DINOv2 (with or without registers) from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, config_mapping.weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        settings = config_mapping.write_config(self.config)
        save_pretrained(folder, self, config_mapping.weight_names(self.config), settings)


def transformer_block(config: VisionTransformerConfig, layer: int) -> Block:
    """Build block number `layer`, counted from 0, of a Vision Transformer."""
    return Block(
        Attention(config.width, config.heads, bias=(config.qkv_bias, True)),
        SwiGLU(config.width, config.mlp_dim, bias=True) if config.swiglu else plain_mlp(config),
        partial(nn.LayerNorm, config.width, eps=config.norm_eps),
        layer_scale=config.layer_scale,
        attention_dropout=config.dropout,
        # Early blocks are dropped rarely: all later blocks need their output (arXiv:1603.09382, section 3).
        drop_path=config.drop_path * layer / max(config.depth - 1, 1),
    )


def plain_mlp(config: VisionTransformerConfig) -> MLP:
    """Build the two-layer MLP with the config's activation."""
    return MLP(config.width, config.mlp_dim, activation=ACTIVATIONS[config.activation], dropout=config.dropout)


class AttentionPooling(nn.Module):
    """Pool patches by cross-attention with one learned query, followed by a residual MLP.

    This is the "multihead attention pooling" head of arXiv:2106.04560, section 3.2, which SigLIP uses.
    """

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        self.probe = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.attention = Attention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = plain_mlp(config)

    def forward(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch width"]:
        query = self.probe.expand(patches.shape[0], 1, -1)
        pooled = self.attention(query, patches)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]
