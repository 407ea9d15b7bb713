"""The vision tokenizer of Emu3: videos and images ↔ grids of codes (arXiv:2409.18869, section 2.2).

    video [batch, frames, channels, height, width]
      → each frame by itself → [batch, latent_channels, frames, height/8, width/8]
      → 3-D convolutions     → [batch, latent_channels, frames/4, height/8, width/8]
      → nearest codes          [batch, frames/4, height/8, width/8]

The decoder mirrors this. An image is a video of four equal frames, and so has codes of the same codebook; of the four
decoded frames, the first is the image.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_11_chameleon.model.quantizer import nearest_codes
from lessons.lesson_11_chameleon.model.vocabulary import check_codes
from lessons.lesson_12_emu3.model import config_mapping
from lessons.lesson_12_emu3.model.config import VisionTokenizerConfig
from lessons.lesson_12_emu3.model.convolution3d import (
    CausalConv3d,
    DoubleFrames,
    HalveFrames,
    TemporalBlock,
    swish,
)
from lessons.lesson_12_emu3.model.spatial import (
    DoubleSides,
    HalveSides,
    Middle,
    ModulatedNorm,
    PlainNorm,
    Resolution,
)
from lessons.lesson_12_emu3.model.weight_names import tokenizer_weight_names
from shared.pretrained import load_weights, save_pretrained

Videos = Float[Tensor, "batch frames channels height width"]
Images = Float[Tensor, "batch channels height width"]
Latents = Float[Tensor, "batch code_dim code_frames rows columns"]
VideoCodes = Int[Tensor, "batch code_frames rows columns"]


class Encoder(nn.Module):
    """Videos → maps [batch, latent_channels, frames / temporal factor, rows, columns]."""

    def __init__(self, config: VisionTokenizerConfig):
        super().__init__()
        widths = [config.width * factor for factor in (1, *config.multipliers)]
        last = len(config.multipliers) - 1
        self.first = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.resolutions = nn.ModuleList(
            Resolution(
                config,
                level,
                (widths[level], widths[level + 1]),
                config.blocks,
                None if level == last else HalveSides(widths[level + 1]),
            )
            for level in range(last + 1)
        )
        self.middle = Middle(config)
        self.norm = PlainNorm(widths[-1])
        self.last = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)
        self.halvings = nn.ModuleList(HalveFrames(config.latent_channels) for _ in range(config.temporal_halvings))
        self.temporal_blocks = nn.ModuleList(TemporalBlock(config.latent_channels) for _ in range(config.blocks))

    def forward(self, videos: Videos) -> Latents:
        x = self.first(videos.flatten(0, 1))
        for resolution in self.resolutions:
            x = resolution(x)
        x = self.last(F.silu(self.norm(self.middle(x))))
        x = rearrange(x, "(b t) c h w -> b c t h w", b=len(videos))
        for halving in self.halvings:
            x = swish(halving(x))
        for block in self.temporal_blocks:
            x = block(x)
        return x


class Decoder(nn.Module):
    """Maps of latents, and the codebook vectors behind them → videos.

    The vectors pass the same temporal layers as the latents, and then modulate every norm.
    """

    def __init__(self, config: VisionTokenizerConfig):
        super().__init__()
        self.temporal_blocks = nn.ModuleList(TemporalBlock(config.latent_channels) for _ in range(config.blocks))
        self.doublings = nn.ModuleList(DoubleFrames(config.latent_channels) for _ in range(config.temporal_halvings))
        self.first = nn.Conv2d(config.latent_channels, config.attention_width, 3, padding=1)
        self.middle = Middle(config, config.code_dim)
        widths = [config.width * factor for factor in (*config.multipliers, config.multipliers[-1])]
        # As published: resolution 0 is the one of the pixels, and the last one is computed first.
        self.resolutions = nn.ModuleList(
            Resolution(
                config,
                level,
                (widths[level + 1], widths[level]),
                config.blocks + 1,
                DoubleSides(widths[level]) if level else None,
                config.code_dim,
            )
            for level in range(len(config.multipliers))
        )
        self.norm = ModulatedNorm(widths[0], config.code_dim)
        self.last = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, latents: Latents, entries: Latents) -> Float[Tensor, "batch frames channels height width"]:
        batch = len(latents)
        both = torch.cat([latents, entries])
        for block in self.temporal_blocks:
            both = block(both)
        for doubling in self.doublings:
            both = swish(doubling(both))
        x, places = (rearrange(part, "b c t h w -> (b t) c h w") for part in both.split(batch))
        x = self.middle(self.first(x), places)
        for level in reversed(range(len(self.resolutions))):
            x = self.resolutions[level](x, places)
        x = self.last(F.silu(self.norm(x, places)))
        return rearrange(x, "(b t) c h w -> b t c h w", b=batch)


class VisionTokenizer(nn.Module):
    """Encode videos and images as codes, and decode codes; published as `Emu3VQVAE`."""

    def __init__(self, config: VisionTokenizerConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.before_codebook = CausalConv3d(config.latent_channels, config.code_dim, (3, 1, 1))
        self.codebook = nn.Embedding(config.codebook_size, config.code_dim)
        self.after_codebook = CausalConv3d(config.code_dim, config.latent_channels, (3, 1, 1))

    # ── Encoding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def latents(self, videos: Videos) -> Latents:
        """Return the vectors that are compared with the codebook, [batch, code_dim, code_frames, rows, columns].

        Raises ValueError for another number of channels, a number of frames that is no multiple of the temporal factor,
        and sides shorter than the spatial factor.
        """
        _, frames, channels, height, width = videos.shape
        config = self.config
        if channels != config.channels or frames < 1 or frames % config.temporal_factor:
            raise ValueError(
                f"videos have {frames} frames of {channels} channels; expected a multiple of {config.temporal_factor} "
                f"frames, of {config.channels} channels"
            )
        if min(height, width) < config.spatial_factor:
            raise ValueError(
                f"frames have {height} × {width} pixels; expected at least {config.spatial_factor}, the side of a code"
            )
        return self.before_codebook(self.encoder(videos))

    @torch.no_grad()
    def encode_videos(self, videos: Videos) -> VideoCodes:
        """Return the codes of videos. Raises ValueError as `latents` does."""
        latents = self.latents(videos)
        vectors = rearrange(latents, "b c t h w -> (b t h w) c")
        codes = nearest_codes(vectors, self.codebook.weight)
        batch, _, frames, rows, columns = latents.shape
        return codes.view(batch, frames, rows, columns)

    def encode_images(
        self, images: Images, sizes: Int[Tensor, "batch 2"] | None = None
    ) -> list[Int[Tensor, "rows columns"]]:
        """Return the codes of each image, which is encoded as a video of equal frames.

        sizes  height and width of each image, where smaller ones are padded on the right and below; codes of padding
               are left out. The padding still affects the codes near it, as in the published class

        Raises ValueError as `latents` does, and for sizes beyond the images.
        """
        codes = self.encode_videos(images[:, None].expand(-1, self.config.temporal_factor, -1, -1, -1))[:, 0]
        if sizes is None:
            return list(codes)
        limits = torch.tensor(images.shape[2:])
        if len(sizes) != len(images) or (sizes > limits.to(sizes.device)).any() or (sizes < 1).any():
            raise ValueError(
                f"image sizes are {sizes.tolist()}; expected a height and a width of at most {limits.tolist()} for "
                f"each of {len(images)} images"
            )
        rows = (sizes // self.config.spatial_factor).tolist()
        return [grid[: size[0], : size[1]] for grid, size in zip(codes, rows, strict=True)]

    # ── Decoding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def decode_videos(self, codes: VideoCodes) -> Float[Tensor, "batch frames out_channels height width"]:
        """Return the frames of codes, `temporal_factor` per grid of codes.

        Raises ValueError for codes that the codebook does not have.
        """
        check_codes(codes, self.config.codebook_size)
        entries = rearrange(self.codebook(codes), "b t h w c -> b c t h w")
        return self.decoder(self.after_codebook(entries), entries)

    def decode_images(
        self, codes: Int[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Return the images of codes: the first frame of each. Raises ValueError as `decode_videos` does."""
        return self.decode_videos(codes[:, None])[:, 0]

    def forward(self, videos: Videos) -> "Reconstruction":
        """Return videos that are encoded and decoded, and their codes. Raises ValueError as `latents` does."""
        codes = self.encode_videos(videos)
        return Reconstruction(self.decode_videos(codes), codes)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "VisionTokenizer":
        """Load a published `Emu3VQVAE` from a folder of its own, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        model = cls(config_mapping.read_tokenizer_config(folder))
        load_weights(model, folder, tokenizer_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `Emu3VQVAE` of `transformers` reads."""
        settings = config_mapping.write_tokenizer_config(self.config)
        save_pretrained(folder, self, tokenizer_weight_names(), settings)


class Reconstruction(NamedTuple):
    """Hold decoded videos and the codes that they were decoded from."""

    videos: Float[Tensor, "batch frames out_channels height width"]
    codes: VideoCodes
