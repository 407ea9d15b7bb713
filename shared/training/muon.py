"""Muon: momentum whose every update is replaced by the nearest orthogonal matrix.

The gradient of a weight matrix is dominated by a few directions. Muon sets all singular values to one, so that the
weak directions move as far as the strong ones. Sources: Keller Jordan, "Muon", 2024, kellerjordan.github.io/posts/muon;
scale and weight decay from arXiv:2502.16982, section 2.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# The quintic a·s + b·s³ + c·s⁵ drives every singular value s in (0, 1] toward 1. Its derivative at zero, a, is as
# large as possible; in return the values end between about 0.7 and 1.2 instead of at 1, which does no harm.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalize(
    matrix: Float[Tensor, "*stack rows columns"], iterations: int = 5
) -> Float[Tensor, "*stack rows columns"]:
    """Return approximately U Vᵀ of `matrix` = U S Vᵀ, by Newton–Schulz iterations: matrix products, no decomposition.

    The products run in bfloat16 on a GPU and in float32 on a CPU.
    """
    a, b, c = QUINTIC
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # X Xᵀ is then the smaller of the two Gram matrices
        x = x.mT
    # The Frobenius norm is at least the largest singular value: after the division every one lies in [0, 1].
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Optimize weight matrices with orthogonalized Nesterov momentum and decoupled weight decay.

    The update is scaled by 0.2·√max(rows, columns). Its root mean square is then that of a typical AdamW update,
    so that one learning rate and one weight decay serve both optimizers (arXiv:2502.16982, eq. 4).
    Raises ValueError for a parameter that is not a matrix.
    """

    def __init__(self, parameters, learning_rate: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"Muon optimizes matrices, not a parameter of shape {tuple(parameter.shape)}; use AdamW for it"
                    )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without a closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        lookahead = gradient.lerp(momentum, group["momentum"])  # Nesterov: the momentum after the next step
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalize(lookahead), alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)
