"""Masked autoencoder (arXiv:2111.06377): encode the visible patches and reconstruct the masked ones.

Pretraining needs no labels. Its result is the encoder; the decoder is discarded.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_01_vit.model import config_mapping
from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig
from lessons.lesson_01_vit.model.patches import patch_grid, patchify, unpatchify
from lessons.lesson_01_vit.model.positions import patch_coordinates, sine_cosine_positions
from lessons.lesson_01_vit.model.vit import VisionTransformer
from lessons.lesson_01_vit.model.weight_names import mae_weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block


def random_masking(
    noise: Float[Tensor, "batch patches"], ratio: float
) -> tuple[Int[Tensor, "batch visible"], Bool[Tensor, "batch patches"]]:
    """Choose visible and masked patches of each image by its `noise` (section 3, "Masking").

    The ⌊patches · (1 − ratio)⌋ patches with the lowest noise stay visible (at least one). Return their indices in
    ascending order, and a mask that is True for masked patches. Raises ValueError for a ratio outside (0, 1).
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"the masking ratio is a fraction of the patches between 0 and 1, got {ratio}")
    patches = noise.shape[1]
    visible_count = max(1, int(patches * (1 - ratio) + 1e-6))
    visible = noise.argsort(dim=1)[:, :visible_count].sort(dim=1).values
    masked = torch.ones_like(noise, dtype=torch.bool).scatter(1, visible, False)
    return visible, masked


def masked_loss(
    predictions: Float[Tensor, "batch patches pixels"],
    patches: Float[Tensor, "batch patches pixels"],
    masked: Bool[Tensor, "batch patches"],
    *,
    normalize: bool = True,
) -> Float[Tensor, ""]:
    """Return the mean squared error over the pixels of masked patches (section 3, "Reconstruction target").

    With `normalize`, the target is each patch's pixels minus their mean, divided by their standard deviation
    (unbiased variance, 1e-6 under the root), so that contrast is predicted and not brightness.
    """
    # exercise 1.5: the loss on masked patches
    target = patches
    if normalize:
        mean = patches.mean(dim=-1, keepdim=True)
        variance = patches.var(dim=-1, keepdim=True)
        target = (patches - mean) / (variance + 1e-6).sqrt()
    error = (predictions - target).square().mean(dim=-1)
    return (error * masked).sum() / masked.sum()
    # end exercise


class MaskedAutoencoder(nn.Module):
    """Encode visible patches only; decode them together with a mask token at the position of each masked patch."""

    decoder_positions: Tensor

    def __init__(self, config: MaskedAutoencoderConfig):
        super().__init__()
        self.config = config
        encoder, width = config.encoder, config.decoder_width
        self.encoder = VisionTransformer(encoder)
        self.decoder_embedding = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        patch_positions = sine_cosine_positions(encoder.grid, width)
        self.register_buffer(
            "decoder_positions", torch.cat([torch.zeros(encoder.prefix_positions, width), patch_positions])
        )
        norm = partial(nn.LayerNorm, width, eps=encoder.norm_eps)
        self.decoder_blocks = nn.ModuleList(
            Block(
                Attention(width, config.decoder_heads, bias=(encoder.qkv_bias, True)),
                MLP(width, config.decoder_mlp_dim or 4 * width),
                norm,
            )
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = norm()
        self.predict = nn.Linear(width, encoder.channels * encoder.patch_size**2)
        for module in (self.decoder_embedding, self.decoder_blocks, self.predict):
            for linear in module.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.xavier_uniform_(linear.weight)
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)

    def encode(
        self, images: Float[Tensor, "batch channels height width_px"], visible: Int[Tensor, "batch visible"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Encode the visible patches alone: masked patches cost no computation and their pixels are not read."""
        encoder = self.encoder
        tokens = encoder.embed_patches(images)
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[-1]))
        grid = patch_grid(images, encoder.config.patch_size)
        angles = encoder.angles(patch_coordinates(grid, images.device)[visible])
        return encoder.encode(encoder.add_prefix(tokens), angles)

    def decode(
        self, tokens: Float[Tensor, "batch tokens width"], visible: Int[Tensor, "batch visible"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch patches pixels"]:
        """Predict the pixels of every patch from the encoder's tokens and a mask token for each masked patch."""
        config = self.encoder.config
        tokens = self.decoder_embedding(tokens)
        indices = visible[..., None].expand(-1, -1, tokens.shape[-1])
        patches = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], grid[0] * grid[1], -1)
        patches = patches.scatter(1, indices, tokens[:, config.prefix_tokens :])

        positions, prefix = self.decoder_positions, config.prefix_positions
        if grid != config.grid:
            positions = torch.cat([positions[:prefix], sine_cosine_positions(grid, patches.shape[-1]).to(positions)])
        registers = tokens[:, prefix : config.prefix_tokens]
        parts = [tokens[:, :prefix] + positions[:prefix], registers, patches + positions[prefix:]]
        tokens = torch.cat(parts, dim=1).to(tokens.dtype)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.predict(self.decoder_norm(tokens))[:, config.prefix_tokens :]

    def forward(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        noise: Float[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch patches pixels"], Bool[Tensor, "batch patches"]]:
        """Return the loss, the predicted patches and the mask, which follows from `noise`, drawn anew if not given.

        Raises ValueError for images that do not divide into patches.
        """
        patch_size = self.config.encoder.patch_size
        grid = patch_grid(images, patch_size)
        if noise is None:
            noise = torch.rand(images.shape[0], grid[0] * grid[1], device=images.device)
        visible, masked = random_masking(noise, self.config.mask_ratio)
        predictions = self.decode(self.encode(images, visible), visible, grid)
        patches = patchify(images, patch_size)
        loss = masked_loss(predictions.float(), patches, masked, normalize=self.config.normalize)
        return loss, predictions, masked

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        noise: Float[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels height width_px"], Float[Tensor, "batch channels height width_px"]]:
        """Return each image with its masked patches gray, and with its masked patches predicted by the decoder."""
        patch_size = self.config.encoder.patch_size
        grid = patch_grid(images, patch_size)
        _, predictions, masked = self(images, noise)
        patches = patchify(images, patch_size)
        if self.config.normalize:  # predictions are normalized per patch; undo it with the true mean and deviation
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            predictions = predictions * (variance + 1e-6).sqrt() + mean
        gray = images.mean().expand_as(patches)
        visible, completed = (
            torch.where(masked[..., None], replacement, patches) for replacement in (gray, predictions.to(patches))
        )
        return unpatchify(visible, grid, patch_size), unpatchify(completed, grid, patch_size)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "MaskedAutoencoder":
        """Load a published masked autoencoder, in evaluation mode. Raises CourseError for another model."""
        config = config_mapping.read_autoencoder_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, mae_weight_names(config.encoder))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for an encoder that is no plain ViT."""
        settings = config_mapping.write_autoencoder_config(self.config)
        save_pretrained(folder, self, mae_weight_names(self.config.encoder), settings)
