"""The image tokenizer of the published Chameleon: an image → a grid of codes (arXiv:2012.09841; arXiv:2203.13131).

Shapes: images [images, channels, side_px, side_px] → latents [images, code_dim, side, side] → codes [images, side²].

The encoder is a convolutional network that halves the side `halvings` times. Each latent vector is replaced by the
index of the nearest codebook vector. The published class has no decoder; training one is the subject of
image_tokenizer.py.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon.model import config_mapping
from lessons.lesson_11_chameleon.model.config import GROUPS, VQConfig
from lessons.lesson_11_chameleon.model.quantizer import nearest_codes
from lessons.lesson_11_chameleon.model.residual_block import ResidualBlock, group_norm
from lessons.lesson_11_chameleon.model.weight_names import vq_weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Attention


class SpatialAttention(nn.Module):
    """x + attention(norm(x)) among all places of a feature map, with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels, GROUPS)
        self.attention = Attention(channels, 1)

    def forward(
        self, x: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images channels height width"]:
        places = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(places).transpose(1, 2).unflatten(2, x.shape[2:])


class Resolution(nn.Module):
    """The residual blocks at one resolution, each perhaps followed by attention, and the halving after them."""

    def __init__(self, config: VQConfig, level: int):
        super().__init__()
        widths = [config.width * factor for factor in (1, *config.multipliers)]
        in_channels, out_channels = widths[level], widths[level + 1]
        with_attention = config.attention and config.image_size // 2**level in config.attention_sizes
        self.blocks = nn.ModuleList(
            ResidualBlock(in_channels if place == 0 else out_channels, out_channels, GROUPS)
            for place in range(config.blocks)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels) if with_attention else nn.Identity() for _ in range(config.blocks)
        )
        last = level == config.halvings
        self.halve = None if last else nn.Conv2d(out_channels, out_channels, 3, stride=2)

    def forward(
        self, x: Float[Tensor, "images in_channels height width"]
    ) -> Float[Tensor, "images out_channels rows columns"]:
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        # Zeros on the right and below only, so that 2n pixels become n.
        return x if self.halve is None else self.halve(F.pad(x, (0, 1, 0, 1)))


class VQEncoder(nn.Module):
    """Encode images as codes; published as `ChameleonVQVAE`.

    `after_codebook` is the first layer of a decoder. It is a part of the published files and is not used here.
    """

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        channels = config.width * config.multipliers[-1]
        self.first = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.resolutions = nn.ModuleList(Resolution(config, level) for level in range(len(config.multipliers)))
        self.middle = nn.Sequential(
            ResidualBlock(channels, channels, GROUPS),
            SpatialAttention(channels) if config.attention else nn.Identity(),
            ResidualBlock(channels, channels, GROUPS),
        )
        self.norm = group_norm(channels, GROUPS)
        self.last = nn.Conv2d(channels, config.latent_channels, 3, padding=1)
        self.before_codebook = nn.Conv2d(config.latent_channels, config.code_dim, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.code_dim)
        self.after_codebook = nn.Conv2d(config.code_dim, config.latent_channels, 1)

    def latents(
        self, images: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images code_dim rows columns"]:
        """Return the vectors that are compared with the codebook. Raises ValueError for images of another size."""
        expected = (self.config.channels, self.config.image_size, self.config.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images have shape {list(images.shape[1:])}; expected {list(expected)} (channels, height, width). "
                "Resize and crop them first"
            )
        x = self.first(images)
        for resolution in self.resolutions:
            x = resolution(x)
        return self.before_codebook(self.last(F.silu(self.norm(self.middle(x)))))

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "images channels height width"]) -> Int[Tensor, "images tokens"]:
        """Return the codes of images in reading order. Raises ValueError as `latents` does."""
        latents = self.latents(images)
        vectors = latents.flatten(2).transpose(1, 2)
        return nearest_codes(vectors.flatten(0, 1), self.codebook.weight).unflatten(0, vectors.shape[:2])

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "VQEncoder":
        """Load a published `ChameleonVQVAE` from a folder of its own, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_vq_config(folder)
        model = cls(config)
        load_weights(model, folder, vq_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `ChameleonVQVAE` of `transformers` reads."""
        save_pretrained(folder, self, vq_weight_names(), config_mapping.write_vq_config(self.config))
