"""Masked autoencoder: hide most patches, let the encoder see only the rest, and paint the hidden ones (arXiv:2111.06377).

What it learns without labels is the encoder; the decoder is thrown away.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_01_vit.model import huggingface
from lessons.lesson_01_vit.model.config import MaskedAutoencoderConfig
from lessons.lesson_01_vit.model.huggingface_names import autoencoder_table
from lessons.lesson_01_vit.model.patches import grid_of, patchify, unpatchify
from lessons.lesson_01_vit.model.positions import patch_coordinates, sine_cosine_positions
from lessons.lesson_01_vit.model.vit import VisionTransformer
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import MLP, Attention, Block


def random_masking(
    noise: Float[Tensor, "batch patches"], ratio: float
) -> tuple[Int[Tensor, "batch visible"], Bool[Tensor, "batch patches"]]:
    """Choose which patches each image keeps, by its own `noise` (section 3, "Masking").

    The ⌊patches · (1 − ratio)⌋ patches of lowest noise stay visible (at least one). Returns their numbers, in reading
    order, and a mask that is True where a patch is hidden. Raises ValueError for a ratio outside (0, 1).
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"the masking ratio is the part of the patches to hide, between 0 and 1; got {ratio}")
    patches = noise.shape[1]
    keep = max(1, int(patches * (1 - ratio) + 1e-6))
    visible = noise.argsort(dim=1)[:, :keep].sort(dim=1).values
    hidden = torch.ones_like(noise, dtype=torch.bool).scatter(1, visible, False)
    return visible, hidden


def masked_loss(
    predicted: Float[Tensor, "batch patches pixels"],
    patches: Float[Tensor, "batch patches pixels"],
    hidden: Bool[Tensor, "batch patches"],
    *,
    normalize: bool = True,
) -> Float[Tensor, ""]:
    """Mean squared error of the pixels of hidden patches alone (section 3, "Reconstruction target").

    With `normalize` the target is each patch's pixels less their mean, divided by their standard deviation
    (with the unbiased variance, and 1e-6 under the root): contrast, not brightness, is to be painted.
    """
    # exercise 1.5: the loss on hidden patches
    target = patches
    if normalize:
        mean = patches.mean(dim=-1, keepdim=True)
        variance = patches.var(dim=-1, keepdim=True)
        target = (patches - mean) / (variance + 1e-6).sqrt()
    error = (predicted - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()
    # end exercise


class MaskedAutoencoder(nn.Module):
    """The encoder reads the visible patches only; the decoder reads those and mask tokens, each at its place."""

    def __init__(self, config: MaskedAutoencoderConfig):
        super().__init__()
        self.config = config
        width, pixels = config.decoder_width, config.encoder.channels * config.encoder.patch_size**2
        self.encoder = VisionTransformer(config.encoder)
        self.decoder_embedding = nn.Linear(config.encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        leading = config.encoder.leading
        places = torch.cat([torch.zeros(leading, width), sine_cosine_positions(config.encoder.grid, width)])
        self.register_buffer("decoder_positions", places)
        norm = partial(nn.LayerNorm, width, eps=config.encoder.norm_eps)
        self.decoder_blocks = nn.ModuleList(
            Block(
                Attention(width, config.decoder_heads, bias=(config.encoder.qkv_bias, True)),
                MLP(width, config.decoder_mlp_dim or 4 * width),
                norm,
            )
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = norm()
        self.predict = nn.Linear(width, pixels)
        for module in (self.decoder_embedding, self.decoder_blocks, self.predict):
            for linear in module.modules():
                if isinstance(linear, nn.Linear):
                    nn.init.xavier_uniform_(linear.weight)
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)

    def encode(
        self, images: Float[Tensor, "batch channels height width_px"], visible: Int[Tensor, "batch visible"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The encoder's tokens, of the visible patches alone: hidden ones cost nothing and leak nothing."""
        encoder = self.encoder
        tokens = encoder.embed_patches(images)
        tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[-1]))
        grid = grid_of(*images.shape[-2:], encoder.config.patch_size)
        angles = encoder.angles(patch_coordinates(grid, images.device)[visible])
        return encoder.encode(encoder.add_leading_tokens(tokens), angles)

    def decode(
        self, tokens: Float[Tensor, "batch tokens width"], visible: Int[Tensor, "batch visible"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch patches pixels"]:
        """Paint every patch, from the encoder's tokens and a mask token at each hidden place."""
        before, patches = self.encoder.before_patches, grid[0] * grid[1]
        tokens = self.decoder_embedding(tokens)
        places = visible[..., None].expand(-1, -1, tokens.shape[-1])
        full = self.mask_token.to(tokens.dtype).expand(tokens.shape[0], patches, -1)
        full = full.scatter(1, places, tokens[:, before:])
        leading = self.encoder.config.leading
        positions = self.decoder_positions
        if grid != self.encoder.config.grid:
            positions = torch.cat([positions[:leading], sine_cosine_positions(grid, full.shape[-1]).to(positions)])
        front = torch.cat([tokens[:, :leading] + positions[:leading], tokens[:, leading:before]], dim=1)
        tokens = torch.cat([front, full + positions[leading:]], dim=1).to(tokens.dtype)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.predict(self.decoder_norm(tokens))[:, before:]

    def forward(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        noise: Float[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch patches pixels"], Bool[Tensor, "batch patches"]]:
        """The loss, the painted patches and which of them were hidden; `noise` decides, or is drawn anew.

        Raises ValueError for images that do not divide into patches.
        """
        patch_size = self.config.encoder.patch_size
        grid = grid_of(*images.shape[-2:], patch_size)
        if noise is None:
            noise = torch.rand(images.shape[0], grid[0] * grid[1], device=images.device)
        visible, hidden = random_masking(noise, self.config.mask_ratio)
        predicted = self.decode(self.encode(images, visible), visible, grid)
        loss = masked_loss(predicted.float(), patchify(images, patch_size), hidden, normalize=self.config.normalize)
        return loss, predicted, hidden

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        noise: Float[Tensor, "batch patches"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels height width_px"], Float[Tensor, "batch channels height width_px"]]:
        """Two pictures of each image: what the encoder was shown (hidden patches gray), and that completed by the decoder."""
        patch_size = self.config.encoder.patch_size
        grid = grid_of(*images.shape[-2:], patch_size)
        _, predicted, hidden = self(images, noise)
        patches = patchify(images, patch_size)
        if self.config.normalize:  # the decoder painted contrast; give each patch its own brightness back, to look at
            mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
            predicted = predicted * (variance + 1e-6).sqrt() + mean
        gray = images.mean().expand_as(patches)
        shown, completed = (torch.where(hidden[..., None], fill, patches) for fill in (gray, predicted.to(patches)))
        return unpatchify(shown, grid, patch_size), unpatchify(completed, grid, patch_size)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "MaskedAutoencoder":
        """A published masked autoencoder from its folder, in evaluation mode. Raises CourseError when it is another model."""
        config = huggingface.read_autoencoder_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, autoencoder_table(config.encoder))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for an encoder that is no plain ViT."""
        written = huggingface.write_autoencoder_config(self.config)
        save_pretrained(folder, self, autoencoder_table(self.config.encoder), written)
