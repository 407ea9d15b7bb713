"""What is inserted between the frozen blocks: cross-attention that enters through a gate (arXiv:2204.14198, section 2.2)."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from shared.attention import Mask
from shared.transformer import Attention, DecoderConfig, RMSNorm, SwiGLU


def gated(
    x: Float[Tensor, "batch tokens width"],
    update: Float[Tensor, "batch tokens width"],
    gate: Float[Tensor, "gate"] | None,
) -> Float[Tensor, "batch tokens width"]:
    """x + tanh(gate) · update: at gate 0 it is x, to the bit; None stands for a gate that is always open.

    gate  one number, or one for each value of a token
    """
    # exercise 4.5: a gate that begins closed, or is always open
    return x + update if gate is None else x + torch.tanh(gate) * update
    # end exercise


class GatedCrossAttention(nn.Module):
    """Text looks at images, then thinks; each is added through its own gate, and both gates begin closed (figure 4).

    language  the sizes of the model that it is inserted into: its norms, its heads and its kind of feed-forward network
    """

    def __init__(self, config: FlamingoConfig, language: DecoderConfig):
        super().__init__()
        width, norm = language.width, partial(RMSNorm, eps=language.norm_eps)
        self.attention_norm, self.mlp_norm = norm(width), norm(width)
        self.attention = Attention(
            width,
            language.heads,
            context_width=config.resampler.width,
            bias=False,
            qk_norm=norm if config.qk_norm else None,
        )
        self.mlp = SwiGLU(width, language.mlp_dim)
        size = {"scalar": 1, "vector": width, "none": 0}[config.gates]
        for name in ("attention_gate", "mlp_gate"):
            self.register_parameter(name, nn.Parameter(torch.zeros(size)) if size else None)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        media: Float[Tensor, "batch latents media_width"],
        mask: Mask,
    ) -> Float[Tensor, "batch tokens width"]:
        """`mask` says which latents each token sees. A token that sees none gathers nothing, but it thinks."""
        x = gated(x, self.attention(self.attention_norm(x), media, mask=mask), self.attention_gate)
        return gated(x, self.mlp(self.mlp_norm(x)), self.mlp_gate)
