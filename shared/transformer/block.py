"""The pre-norm transformer block: attention and an MLP, each with a residual connection; and the MLP itself."""

from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from shared.attention import FULL_ATTENTION, Mask
from shared.transformer.attention import Attention
from shared.transformer.kv_cache import LayerCache
from shared.transformer.normalization import RMSNorm, rms_norm


def quick_gelu(x: Tensor) -> Tensor:
    """Return x · sigmoid(1.702 x), a fast approximation of GELU (arXiv:1606.08415, section 2) that CLIP uses."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}
"""Activations by the names that published configs give them."""


class MLP(nn.Module):
    """down(activation(up(x))): two linear layers with a nonlinearity (arXiv:1706.03762, section 3.3).

    dropout  applied after the activation and to the output
    """

    def __init__(
        self,
        width: int,
        mlp_dim: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up = nn.Linear(width, mlp_dim, bias=bias)
        self.down = nn.Linear(mlp_dim, width, bias=bias)
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens width"]:
        hidden = F.dropout(self.activation(self.up(x)), self.dropout, self.training)
        return F.dropout(self.down(hidden), self.dropout, self.training)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)): an MLP whose inner features are multiplied by a gate (arXiv:2002.05202, eq. 6).

    activation  of the gate; with GELU the MLP is the paper's GEGLU, which Gemma uses
    dropout     applied to the output
    """

    def __init__(
        self,
        width: int,
        mlp_dim: int,
        *,
        bias: bool = False,
        activation: Callable[[Tensor], Tensor] = F.silu,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.gate = nn.Linear(width, mlp_dim, bias=bias)
        self.up = nn.Linear(width, mlp_dim, bias=bias)
        self.down = nn.Linear(mlp_dim, width, bias=bias)
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens width"]:
        return F.dropout(self.down(self.activation(self.gate(x)) * self.up(x)), self.dropout, self.training)


def normalized_residual(
    x: Float[Tensor, "*batch tokens width"],
    update: Float[Tensor, "*batch tokens width"],
    weight: Float[Tensor, "width"],
    eps: float,
    *,
    offset: float = 0.0,
) -> Float[Tensor, "*batch tokens width"]:
    """Return x plus the RMS-normalized output of a part of a block (arXiv:2408.00118, section 2).

    Whatever the part's weights are, it adds a vector of root mean square |weight + offset|. The residual stream `x`
    itself is not normalized, unlike in the post-norm block of arXiv:1706.03762.
    """
    # exercise 7.7: the norm after a part
    return x + rms_norm(update, weight, eps, offset=offset)
    # end exercise


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (pre-norm: arXiv:2002.04745, figure 1b).

    The norms may also, or only, stand after the parts: x + norm(attention(x)), then x + norm(mlp(x)) (arXiv:2111.09883,
    section 3.2).

    attention          `Attention`, or a module with the same `forward` for self-attention, `weights` and `width`
    mlp                any module [batch, tokens, width] → [batch, tokens, width], such as `MLP`, `SwiGLU` or experts
    norm               constructor of a norm, called for each place: `lambda: RMSNorm(width)`
    norms              whether the inputs of attention and MLP are normalized ("before"), or their outputs before these
                       are added ("after", by RMSNorms: Chameleon-34B), or "both" (Gemma 2)
    layer_scale        initial value of a learned vector that multiplies each part's output (arXiv:2103.17239, eq. 4);
                       None for no such vectors
    attention_dropout  dropout of the attention's output; the MLP has its own
    drop_path          probability that a sample skips a part in training (stochastic depth, arXiv:1603.09382)

    Raises ValueError when `drop_path` is not in [0, 1), and for norms after the parts that are no RMSNorms or come with
    layer scale or stochastic depth.
    """

    attention_scale: Tensor | None
    mlp_scale: Tensor | None
    attention_post_norm: RMSNorm | None
    mlp_post_norm: RMSNorm | None

    def __init__(
        self,
        attention: nn.Module,
        mlp: nn.Module,
        norm: Callable[[], nn.Module],
        *,
        norms: Literal["before", "after", "both"] = "before",
        layer_scale: float | None = None,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is {drop_path}; expected a probability in [0, 1)")
        self.attention_norm = norm() if norms != "after" else nn.Identity()
        self.attention = cast(Attention, attention)
        self.mlp_norm = norm() if norms != "after" else nn.Identity()
        self.mlp = mlp
        for name in ("attention_post_norm", "mlp_post_norm"):
            module = norm() if norms != "before" else None
            if module is not None and (not isinstance(module, RMSNorm) or layer_scale is not None or drop_path):
                raise ValueError(
                    f"norms {norms!r} are given with the norm {type(module).__name__}, layer_scale {layer_scale} and "
                    f"drop_path {drop_path}; expected RMSNorm, None and 0"
                )
            setattr(self, name, module)
        self.attention_dropout = attention_dropout
        self.drop_path = drop_path
        for name in ("attention_scale", "mlp_scale"):
            scale = None if layer_scale is None else nn.Parameter(torch.full((self.attention.width,), layer_scale))
            self.register_parameter(name, scale)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        *,
        mask: Mask = FULL_ATTENTION,
        angles: Float[Tensor, "#batch tokens half_head_dim"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the tokens after both parts; arguments are those of `Attention`."""
        update = self.attention(self.attention_norm(x), mask=mask, angles=angles, cache=cache)
        update = F.dropout(update, self.attention_dropout, self.training)
        x = self._add(x, update, self.attention_scale, self.attention_post_norm)
        return self._add(x, self.mlp(self.mlp_norm(x)), self.mlp_scale, self.mlp_post_norm)

    def _add(
        self,
        x: Float[Tensor, "batch tokens width"],
        update: Float[Tensor, "batch tokens width"],
        scale: Float[Tensor, "width"] | None,
        post_norm: RMSNorm | None,
    ) -> Float[Tensor, "batch tokens width"]:
        if post_norm is not None:
            return normalized_residual(x, update, post_norm.weight, post_norm.eps, offset=post_norm.offset)
        return x + self._scale_and_drop(update, scale)

    def _scale_and_drop(
        self, update: Float[Tensor, "batch tokens width"], scale: Float[Tensor, "width"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        """Apply layer scale and, in training, drop the update of some samples and scale up the others."""
        if scale is not None:
            update = update * scale
        if self.drop_path == 0 or not self.training:
            return update
        keep = torch.rand(update.shape[0], 1, 1, device=update.device) >= self.drop_path
        return update * keep / (1 - self.drop_path)
