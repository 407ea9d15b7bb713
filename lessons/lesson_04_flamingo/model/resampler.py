"""The perceiver resampler: an image of any size becomes a fixed number of tokens (arXiv:2204.14198, section 2.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_04_flamingo.model.config import ResamplerConfig
from shared.transformer import MLP, Attention, Scores


class ResamplerBlock(nn.Module):
    """Let latents attend to patches and to each other, then apply an MLP (figure 5); no biases, as in IDEFICS."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        width = config.width
        self.context_norm, self.latents_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        scores = Scores(qk_norm=nn.LayerNorm if config.qk_norm else None)
        self.attention = Attention(width, config.heads, head_dim=config.head_dim, bias=False, scores=scores)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width, activation=F.relu, bias=False)

    def forward(
        self, latents: Float[Tensor, "batch latents width"], patches: Float[Tensor, "batch patches width"]
    ) -> Float[Tensor, "batch latents width"]:
        queries, context = self.attention_inputs(latents, patches)
        latents = latents + self.attention(queries, context)
        return latents + self.mlp(self.mlp_norm(latents))

    def attention_inputs(
        self, latents: Float[Tensor, "batch latents width"], patches: Float[Tensor, "batch patches width"]
    ) -> tuple[Float[Tensor, "batch latents width"], Float[Tensor, "batch keys width"]]:
        """Return the normalized latents, which attend, and what they attend to: the patches, then the latents."""
        queries = self.latents_norm(latents)
        return queries, torch.cat([self.context_norm(patches), queries], dim=1)


class PerceiverResampler(nn.Module):
    """Map patch features to the final states of learned latents: [batch, patches, width] → [batch, latents, width]."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.randn(config.latents, config.width))
        self.blocks = nn.ModuleList(ResamplerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and name != "latents":
                nn.init.xavier_uniform_(parameter)

    def forward(self, patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch latents width"]:
        latents = self.latents.expand(len(patches), -1, -1)
        for block in self.blocks:
            latents = block(latents, patches)
        return self.norm(latents)

    @torch.no_grad()
    def attention_maps(
        self, patches: Float[Tensor, "batch patches width"]
    ) -> list[Float[Tensor, "batch heads latents patches_and_latents"]]:
        """Return the latents' attention probabilities over patches, then latents: one tensor per block."""
        latents, maps = self.latents.expand(len(patches), -1, -1), []
        for block in self.blocks:
            assert isinstance(block, ResamplerBlock)
            maps.append(block.attention.weights(*block.attention_inputs(latents, patches)))
            latents = block(latents, patches)
        return maps
