"""The perceiver resampler: an image of any size becomes a fixed number of tokens (arXiv:2204.14198, section 2.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_04_flamingo.model.config import ResamplerConfig
from shared.transformer import MLP, Attention


class ResamplerBlock(nn.Module):
    """Latents look at the image *and at each other* in one attention, then think (figure 5); no biases, as in IDEFICS."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        width = config.width
        self.context_norm, self.latents_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(
            width, config.heads, head_dim=config.head_dim, bias=False, qk_norm=nn.LayerNorm if config.qk_norm else None
        )
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, activation=F.relu, bias=False)

    def forward(
        self, latents: Float[Tensor, "batch latents width"], context: Float[Tensor, "batch patches width"]
    ) -> Float[Tensor, "batch latents width"]:
        queries, keys = self.look(latents, context)
        latents = latents + self.attention(queries, keys)
        return latents + self.mlp(self.mlp_norm(latents))

    def look(
        self, latents: Float[Tensor, "batch latents width"], context: Float[Tensor, "batch patches width"]
    ) -> tuple[Float[Tensor, "batch latents width"], Float[Tensor, "batch keys width"]]:
        """Who looks, and at what: the latents at the patches, and behind them at the latents themselves."""
        asking = self.latents_norm(latents)
        return asking, torch.cat([self.context_norm(context), asking], dim=1)


class PerceiverResampler(nn.Module):
    """Learned latents that gather an image, block by block: [batch, patches, width] → [batch, latents, width]."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.latents, config.width))
        self.blocks = nn.ModuleList(ResamplerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and name != "latents":
                nn.init.xavier_uniform_(parameter)

    def forward(self, features: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch latents width"]:
        latents = self.latents.expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block(latents, features)
        return self.norm(latents)

    @torch.no_grad()
    def attention_maps(
        self, features: Float[Tensor, "batch patches width"]
    ) -> list[Float[Tensor, "batch heads latents patches_and_latents"]]:
        """Where each latent looks, one tensor of probabilities a block: at the patches, then at the latents."""
        latents, maps = self.latents.expand(len(features), -1, -1), []
        for block in self.blocks:
            maps.append(block.attention.weights(*block.look(latents, features)))
            latents = block(latents, features)
        return maps
