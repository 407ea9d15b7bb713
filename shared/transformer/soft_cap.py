"""Soft-capping (arXiv:2408.00118, section 2): squeeze values into an interval smoothly, in place of clipping them."""

from jaxtyping import Float
from torch import Tensor, nn


def soft_cap(x: Float[Tensor, "*shape"], limit: float) -> Float[Tensor, "*shape"]:
    """Return limit · tanh(x / limit): nearly x where |x| is small against the limit, and never beyond ±limit.

    Unlike clipping, it keeps the order of the values, and its gradient 1 − tanh² is nowhere exactly zero.
    """
    # exercise 7.6: soft-capping
    return limit * (x / limit).tanh()
    # end exercise


class SoftCappedLinear(nn.Linear):
    """A linear layer without bias whose outputs are soft-capped: the output layer of Gemma 2."""

    def __init__(self, in_features: int, out_features: int, limit: float):
        super().__init__(in_features, out_features, bias=False)
        self.limit = limit

    def forward(self, x: Float[Tensor, "*shape in_features"]) -> Float[Tensor, "*shape out_features"]:
        return soft_cap(super().forward(x), self.limit)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, limit={self.limit:g}"
