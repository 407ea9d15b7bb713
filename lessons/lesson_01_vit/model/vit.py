"""The Vision Transformer (arXiv:2010.11929), with the parts that later work added: registers, rotary positions, layer scale."""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_01_vit.model import huggingface
from lessons.lesson_01_vit.model.config import VisionTransformerConfig
from lessons.lesson_01_vit.model.patches import PatchEmbedding, grid_of
from lessons.lesson_01_vit.model.pooling import AttentionPooling, class_pooling, mean_pooling
from lessons.lesson_01_vit.model.positions import interpolate_positions, patch_coordinates, sine_cosine_positions
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block, Rotary, SwiGLU

# Two axes of some tens of patches need slower turns than a text of thousands of words (arXiv:2403.13298, section 3.2).
ROTARY_BASE = 100.0


class VisionTransformer(nn.Module):
    """Patches → tokens with positions → transformer blocks → norm → one vector → head.

    The sequence is [class token, distillation token, registers, patches in reading order], each where it exists.
    Images of any size that divides into patches will do; learned positions are resized to their grid.
    """

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        self.config = config
        width, rows, columns = config.width, *config.grid

        self.patch_embedding = PatchEmbedding(config.patch_size, config.channels, width)
        self.class_token = nn.Parameter(torch.zeros(width)) if config.class_token else None
        self.distillation_token = nn.Parameter(torch.zeros(width)) if config.distillation_token else None
        self.registers = nn.Parameter(torch.zeros(config.registers, width)) if config.registers else None
        self.mask_token = nn.Parameter(torch.zeros(width)) if config.mask_token else None
        match config.positions:
            case "learned":
                self.positions = nn.Parameter(torch.zeros(config.leading + rows * columns, width))
            case "sine-cosine":
                waves = sine_cosine_positions((rows, columns), width)
                self.register_buffer("positions", torch.cat([torch.zeros(config.leading, width), waves]))
            case _:
                self.positions = None
        rotary = config.positions == "rotary"
        self.rotary = Rotary(width // config.heads, base=ROTARY_BASE, axes=2) if rotary else None

        self.blocks = nn.ModuleList(self._block(config, layer) for layer in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.pooler = nn.Linear(width, width) if config.pooler else None
        attends = config.pooling == "attention"
        self.attention_pooling = (
            AttentionPooling(width, config.heads, config.mlp_dim, config.norm_eps) if attends else None
        )
        self.head = nn.Linear(width, config.classes) if config.classes else None
        self._initialize()

    @staticmethod
    def _block(config: VisionTransformerConfig, layer: int) -> Block:
        mlp = {"gelu": MLP, "swiglu": SwiGLU}[config.mlp]
        return Block(
            Attention(config.width, config.heads, bias=(config.qkv_bias, True)),
            mlp(config.width, config.mlp_dim, bias=True),
            partial(nn.LayerNorm, config.width, eps=config.norm_eps),
            layer_scale=config.layer_scale,
            # Early blocks are dropped rarely: what they compute, all later ones need (arXiv:1603.09382, section 3).
            drop_path=config.drop_path * layer / max(config.depth - 1, 1),
        )

    def _initialize(self) -> None:
        """Xavier's uniform weights and zero biases, and small random tokens, as in the original code of ViT and MAE."""
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

    # ── The sequence ──────────────────────────────────────────────────────────────────────────────────────────────

    def embed_patches(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        hidden: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch patches width"]:
        """Patch tokens that know their position; where `hidden`, the mask token stands in for what is seen there.

        Raises ValueError for sides that are no multiples of the patch, and for `hidden` in a model without mask token.
        """
        tokens = self.patch_embedding(images)
        if hidden is not None:
            if self.mask_token is None:
                raise ValueError("this model has no mask token to hide patches with; set mask_token=True in its config")
            tokens = torch.where(hidden[..., None], self.mask_token, tokens)
        if self.positions is not None:
            grid = grid_of(*images.shape[-2:], self.config.patch_size)
            positions = self.positions[self.config.leading :]
            tokens = tokens + interpolate_positions(positions, self.config.grid, grid, antialias=self.config.antialias)
        return tokens

    def add_leading_tokens(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch tokens width"]:
        """Put the class token and its like in front, with their positions, and the registers between, without any."""
        leading = [token for token in (self.class_token, self.distillation_token) if token is not None]
        front = [torch.stack(leading)] if leading else []
        if front and self.positions is not None:
            front = [front[0] + self.positions[: len(leading)]]
        if self.registers is not None:
            front.append(self.registers)
        front = [tokens.expand(patches.shape[0], -1, -1) for tokens in front]
        return torch.cat([*front, patches], dim=1)

    @property
    def before_patches(self) -> int:
        """How many tokens stand before the first patch."""
        return self.config.leading + self.config.registers

    def angles(self, coordinates: Int[Tensor, "batch patches 2"]) -> Float[Tensor, "batch tokens half_head_dim"] | None:
        """What rotary positions turn each token by; tokens that are no patches are not turned."""
        if self.rotary is None:
            return None
        nowhere = coordinates.new_zeros(coordinates.shape[0], self.before_patches, 2)
        return self.rotary(torch.cat([nowhere, coordinates], dim=1))

    def encode(
        self, tokens: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "#batch tokens half_head_dim"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        """The transformer itself (eq. 2–4): every block, then the last norm."""
        for block in self.blocks:
            tokens = block(tokens, angles=angles)
        return self.norm(tokens)

    # ── What one asks of it ───────────────────────────────────────────────────────────────────────────────────────

    def features(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        hidden: Bool[Tensor, "batch patches"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Every token after the last norm: the class token first, the patches last. Raises as `embed_patches` does."""
        tokens = self.add_leading_tokens(self.embed_patches(images, hidden))
        return self.encode(tokens, self._angles_of(images))

    def _angles_of(self, images: Tensor) -> Tensor | None:
        grid = grid_of(*images.shape[-2:], self.config.patch_size)
        return self.angles(patch_coordinates(grid, images.device)[None])

    def pool(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
        """One vector for an image, from the tokens that `features` gives."""
        if self.attention_pooling is not None:
            return self.attention_pooling(tokens[:, self.before_patches :])
        if self.config.pooling == "mean":
            return mean_pooling(tokens, self.before_patches)
        pooled = class_pooling(tokens)
        return torch.tanh(self.pooler(pooled)) if self.pooler is not None else pooled

    def forward(self, images: Float[Tensor, "batch channels height width_px"]) -> Float[Tensor, "batch outputs"]:
        """One logit per class; the pooled vector itself in a model without a head. Raises as `embed_patches` does."""
        pooled = self.pool(self.features(images))
        return pooled if self.head is None else self.head(pooled)

    @torch.no_grad()
    def attention_maps(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """Who looked at whom, one tensor of probabilities per block: each row is a token's look at all tokens."""
        tokens, angles, maps = self.add_leading_tokens(self.embed_patches(images)), self._angles_of(images), []
        for block in self.blocks:
            maps.append(block.attention.weights(block.attention_norm(tokens), angles=angles))
            tokens = block(tokens, angles=angles)
        return maps

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "VisionTransformer":
        """A published ViT or DINOv2 (with or without registers) from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, lacks weights or holds too many.
        """
        config = huggingface.read_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, huggingface.table(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        written = huggingface.write_config(self.config)
        save_pretrained(folder, self, huggingface.table(self.config), written)
