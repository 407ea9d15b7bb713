"""An asymmetric diffusion transformer over the latents of a video, after Mochi 1's description.

Text and vision tokens attend to each other in one attention and have linear layers of their own, as in MMDiT
(arXiv:2403.03206, section 4). Most parameters belong to the vision stream, which is wider than the text stream. Linear
layers that are not square bring both to the same attention heads. Positions are rotary in time, height and width (with
fixed frequencies; Mochi 1 learns them).

    vision [batch, frames · rows · columns, width] ─┐                        ┌─ output, MLP of vision
                                                    ├→ joint self-attention →┤
    text   [batch, tokens, text_width]             ─┘                        └─ output, MLP of text

Published: blog post and code of Mochi 1 (genmo.ai, October 2024); there is no paper.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from shared.attention import Mask, attention
from shared.transformer import RMSNorm, Rotary, rotate

Vision = Float[Tensor, "batch places width"]
Text = Float[Tensor, "batch tokens text_width"]


@dataclass(frozen=True)
class VideoTransformerConfig:
    """Describe a video transformer.

    channels    of the latents
    width       of the vision stream
    text_width  of the text stream, which is narrower
    depth       number of blocks
    heads       of the joint attention
    head_dim    of one head, a multiple of 6: a third for each of time, row and column
    vocab_size  of the captions' tokens

    Raises ValueError for a head that three axes cannot share, and for a text stream that is wider than vision.
    """

    channels: int
    vocab_size: int
    width: int = 96
    text_width: int = 48
    depth: int = 4
    heads: int = 4
    head_dim: int = 24

    def __post_init__(self) -> None:
        if self.head_dim % 6 or self.text_width > self.width:
            raise ValueError(
                f"head_dim is {self.head_dim}, width is {self.width} and text_width is {self.text_width}; expected a "
                "multiple of 6, and a text stream that is not wider than the vision stream"
            )


def time_features(times: Float[Tensor, "batch"], width: int) -> Float[Tensor, "batch width"]:
    """Return cosines and sines of times from 0 to 1 at frequencies from 1 to 1,000 (arXiv:2006.11239)."""
    frequencies = torch.exp(math.log(1000) * torch.linspace(0, 1, width // 2, device=times.device))
    angles = times[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Stream(nn.Module):
    """The layers of one modality in a block: linear layers around attention, MLP, and modulation by the time."""

    def __init__(self, width: int, time_width: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(time_width, 4 * width)
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.query_norm, self.key_norm = RMSNorm(head_dim), RMSNorm(head_dim)
        self.output = nn.Linear(heads * head_dim, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        # Every block starts as the identity (arXiv:2212.09748, section 3.2).
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def scales(self, time: Float[Tensor, "batch time_width"]) -> tuple[Tensor, ...]:
        """Return what multiplies the input and the output of attention, and those of the MLP."""
        return self.modulation(F.silu(time))[:, None].chunk(4, dim=-1)

    def heads_of(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [batch, heads, tokens, head_dim]."""
        qkv = self.qkv(self.attention_norm(x) * (1 + scale))
        query, key, value = rearrange(qkv, "b t (three h d) -> three b h t d", three=3, h=self.heads)
        return self.query_norm(query), self.key_norm(key), value

    def add(self, x: Tensor, gathered: Tensor, scales: tuple[Tensor, ...]) -> Tensor:
        """Return x plus what attention gathered and plus the MLP's output, each times its gate."""
        _, attention_gate, mlp_scale, mlp_gate = scales
        x = x + attention_gate * self.output(gathered.transpose(1, 2).flatten(2))
        return x + mlp_gate * self.mlp(self.mlp_norm(x) * (1 + mlp_scale))


class JointBlock(nn.Module):
    """Attention over the tokens of vision and text together, with layers of their own before and after it."""

    def __init__(self, config: VideoTransformerConfig):
        super().__init__()
        sizes = (config.width, config.heads, config.head_dim)
        self.vision = Stream(config.width, *sizes)
        self.text = Stream(config.text_width, *sizes)

    def forward(self, vision: Vision, text: Text, time: Tensor, angles: Tensor, mask: Mask) -> tuple[Vision, Text]:
        """Return both streams; only vision's queries and keys are rotated."""
        of_vision, of_text = self.vision.scales(time), self.text.scales(time)
        query, key, value = self.vision.heads_of(vision, of_vision[0])
        query, key = rotate(query, angles), rotate(key, angles)
        others = self.text.heads_of(text, of_text[0])
        query, key, value = (torch.cat(pair, dim=2) for pair in zip((query, key, value), others, strict=True))
        gathered = attention(query, key, value, mask)
        assert isinstance(gathered, Tensor)
        places = vision.shape[1]
        vision = self.vision.add(vision, gathered[:, :, :places], of_vision)
        return vision, self.text.add(text, gathered[:, :, places:], of_text)


class VideoTransformer(nn.Module):
    """Predict the velocity of a rectified flow at latents of a video, given a time and a caption."""

    def __init__(self, config: VideoTransformerConfig):
        super().__init__()
        self.config = config
        self.input = nn.Linear(config.channels, config.width)
        self.embedding = nn.Embedding(config.vocab_size, config.text_width)
        self.time = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.blocks = nn.ModuleList(JointBlock(config) for _ in range(config.depth))
        self.norm, self.output = RMSNorm(config.width), nn.Linear(config.width, config.channels)
        self.rotary = Rotary(config.head_dim, base=100.0, axes=3)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        latents: Float[Tensor, "batch channels frames rows columns"],
        times: Float[Tensor, "batch"],
        captions: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
    ) -> Float[Tensor, "batch channels frames rows columns"]:
        """Return the velocity at noisy latents.

        times     0 for data, 1 for noise
        captions  token ids
        segments  0 for the tokens of a caption and −1 for padding; with padding only, there is no condition
        """
        _, _, frames, rows, columns = latents.shape
        vision, text = self.input(rearrange(latents, "b c t h w -> b (t h w) c")), self.embedding(captions)
        axes = (torch.arange(size, device=latents.device) for size in (frames, rows, columns))
        places = torch.cartesian_prod(*axes)[None]
        joint = F.pad(segments, (vision.shape[1], 0))
        mask = Mask(segment_q=joint, segment_k=joint)
        time, angles = self.time(time_features(times, self.config.width)), self.rotary(places)
        for block in self.blocks:
            vision, text = block(vision, text, time, angles, mask)
        velocity = self.output(self.norm(vision))
        return rearrange(velocity, "b (t h w) c -> b c t h w", t=frames, h=rows, w=columns)
