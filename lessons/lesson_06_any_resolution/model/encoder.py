"""The native-resolution Vision Transformer: NaViT (arXiv:2307.06304) and SigLIP 2's NaFlex encoder (arXiv:2502.14786).

Shapes: images → rows of patches [rows, tokens, patch_pixels] → tokens [rows, tokens, width] → one vector per image
[images, width]. Rows are padded (one image each) or packed (several images each); the weights are the same.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_01_vit.model.vit import ROTARY_BASE
from lessons.lesson_06_any_resolution.model import config_mapping
from lessons.lesson_06_any_resolution.model.config import NaViTConfig
from lessons.lesson_06_any_resolution.model.packing import PatchBatch
from lessons.lesson_06_any_resolution.model.pooling import AttentionPooling, mean_per_image
from lessons.lesson_06_any_resolution.model.positions import added_positions
from lessons.lesson_06_any_resolution.model.weight_names import vision_weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block, Rotary, Scores
from shared.transformer.block import ACTIVATIONS


class NaViT(nn.Module):
    """Patches of images of any resolution → tokens with positions → transformer blocks → LayerNorm → pooled vectors.

    Compared with lesson 1's Vision Transformer, three parts know about several images in a row: attention stays within
    an image, positions depend on the image's grid, and pooling gives one vector per image (section 2.1).
    """

    def __init__(self, config: NaViTConfig):
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(config.patch_pixels, config.width)
        self.positions = added_positions(config)
        rotary = config.positions == "rotary"
        self.rotary = Rotary(config.width // config.heads, base=ROTARY_BASE, axes=2) if rotary else None
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention_pooling = AttentionPooling(config) if config.pooling == "attention" else None
        self.head = nn.Linear(config.width, config.classes) if config.classes else None
        self._initialize()

    def _initialize(self) -> None:
        """Draw Xavier-uniform weights and zero biases, as in lesson 1."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)

    def embed(self, batch: PatchBatch) -> Float[Tensor, "rows tokens width"]:
        """Project every patch to a token and add its position.

        Raises ValueError when patches have another number of values than the config's, or lie beyond a table of
        absolute positions.
        """
        if batch.patches.shape[-1] != self.config.patch_pixels:
            raise ValueError(
                f"patches have {batch.patches.shape[-1]} values, expected {self.config.patch_pixels}: "
                f"{self.config.channels} channels of {self.config.patch_size}×{self.config.patch_size} pixels"
            )
        tokens = self.patch_embedding(batch.patches.to(self.patch_embedding.weight.dtype))
        return tokens if self.positions is None else tokens + self.positions(batch)

    def _states(self, batch: PatchBatch) -> Iterator[Float[Tensor, "rows tokens width"]]:
        """Yield the input of the first block and the output of each block."""
        tokens, mask = self.embed(batch), batch.mask
        angles = None if self.rotary is None else self.rotary(batch.coordinates)
        yield tokens
        for block in self.blocks:
            tokens = block(tokens, mask=mask, angles=angles)
            yield tokens

    def hidden_states(self, batch: PatchBatch) -> list[Float[Tensor, "rows tokens width"]]:
        """Return depth + 1 states, before the last norm. Raises as `embed` does."""
        return list(self._states(batch))

    def features(self, batch: PatchBatch) -> Float[Tensor, "rows tokens width"]:
        """Return every token after the last norm; `batch.split` gives those of each image. Raises as `embed` does."""
        for tokens in self._states(batch):  # noqa: B007  (only the last one is used)
            pass
        return self.norm(tokens)

    def pool(self, tokens: Float[Tensor, "rows tokens width"], batch: PatchBatch) -> Float[Tensor, "images width"]:
        """Reduce the tokens of `features` to one vector per image.

        Raises ValueError for an encoder without pooling.
        """
        if self.attention_pooling is not None:
            return self.attention_pooling(tokens, batch)
        if self.config.pooling == "none":
            raise ValueError("this encoder has pooling 'none'; call features(batch) for one vector per patch")
        return mean_per_image(tokens, batch.image_index, len(batch))

    def forward(self, batch: PatchBatch) -> Float[Tensor, "images outputs"]:
        """Return one logit per class for each image, or its pooled vector if there is no head.

        Raises as `embed` and `pool` do.
        """
        pooled = self.pool(self.features(batch), batch)
        return pooled if self.head is None else self.head(pooled)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "NaViT":
        """Load a published `Siglip2VisionModel` from its folder, in evaluation mode.

        For a folder with both encoders, use `SigLIP2.from_pretrained(folder).image_encoder`.
        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        model = cls(config_mapping.read_vision_config(folder)).to(dtype)
        load_weights(model, folder, vision_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, vision_weight_names(), config_mapping.write_vision_config(self.config))


def _block(config: NaViTConfig) -> Block:
    """Build one pre-norm block; with `qk_norm`, LayerNorms on the queries and keys of each head."""
    norm = partial(nn.LayerNorm, eps=config.norm_eps)
    scores = Scores(qk_norm=norm if config.qk_norm else None)
    return Block(
        Attention(config.width, config.heads, bias=(config.qkv_bias, True), scores=scores),
        MLP(config.width, config.mlp_dim, activation=ACTIVATIONS[config.activation]),
        partial(norm, config.width),
    )
