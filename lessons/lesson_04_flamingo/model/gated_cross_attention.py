"""The layers inserted between the frozen blocks: gated cross-attention to images (arXiv:2204.14198, section 2.2)."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from shared.attention import Mask
from shared.transformer import Attention, DecoderConfig, RMSNorm, Scores, SwiGLU


def gated_residual(
    x: Float[Tensor, "batch tokens width"],
    update: Float[Tensor, "batch tokens width"],
    gate: Float[Tensor, "gate"] | None,
) -> Float[Tensor, "batch tokens width"]:
    """Return x + tanh(gate) · update, which equals x to the last bit at gate 0; without a gate, x + update.

    gate  one value, or one per feature
    """
    # exercise 4.5: a residual with an optional tanh gate
    return x + update if gate is None else x + torch.tanh(gate) * update
    # end exercise


class GatedCrossAttention(nn.Module):
    """Add cross-attention of text to images, then an MLP, each through a gate that is initially 0 (figure 4).

    language  config of the language model, whose norm, number of heads and MLP the layer has too
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
            scores=Scores(qk_norm=norm if config.qk_norm else None),
        )
        self.mlp = SwiGLU(width, language.mlp_dim)
        size = {"scalar": 1, "vector": width, "none": 0}[config.gates]
        self.attention_gate = nn.Parameter(torch.zeros(size)) if size else None
        self.mlp_gate = nn.Parameter(torch.zeros(size)) if size else None
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        visual_tokens: Float[Tensor, "batch latents visual_width"],
        mask: Mask,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the text tokens after both branches.

        `mask` selects the visual tokens that each text token attends to. Without any, the attention output is zero, and
        only the MLP changes the token.
        """
        x = gated_residual(x, self.attention(self.attention_norm(x), visual_tokens, mask=mask), self.attention_gate)
        return gated_residual(x, self.mlp(self.mlp_norm(x)), self.mlp_gate)
