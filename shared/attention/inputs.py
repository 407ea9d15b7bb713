"""The arguments of one attention call as every backend takes them, and the check that they fit together."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from shared.attention.mask import Mask


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """The arguments of `shared.attention.attention`, where they are documented, with the scale filled in."""

    q: Float[Tensor, "batch heads q_len head_dim"]
    k: Float[Tensor, "batch kv_heads k_len head_dim"]
    v: Float[Tensor, "batch kv_heads k_len value_dim"]
    mask: Mask
    scale: float
    softcap: float | None = None
    bias: Float[Tensor, "#batch #heads #q_len #k_len"] | None = None

    def check(self) -> None:
        """Raise ValueError, naming the shapes, unless everything fits together."""
        q, k, v, bias = self.q, self.k, self.v, self.bias
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            if tensor.ndim != 4:
                raise ValueError(f"{name} has shape {list(tensor.shape)}; expected [batch, heads, length, head_dim]")
        shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        if k.shape[:3] != v.shape[:3]:
            raise ValueError(f"k and v must agree in batch, heads and length: {shapes}")
        if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
            raise ValueError(f"q and k must agree in batch and head_dim: {shapes}")
        if q.shape[1] % k.shape[1]:
            raise ValueError(f"{q.shape[1]} query heads can't share {k.shape[1]} key heads evenly: {shapes}")
        if not (q.dtype == k.dtype == v.dtype and q.is_floating_point()):
            raise ValueError(f"q, k and v must have one floating-point dtype; got {q.dtype}, {k.dtype}, {v.dtype}")
        if not q.device == k.device == v.device:
            raise ValueError(f"q, k and v must be on one device; got {q.device}, {k.device}, {v.device}")
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"softcap is {self.softcap}; expected a number above 0, or None for no limit")
        if bias is not None:
            full = (q.shape[0], q.shape[1], q.shape[2], k.shape[2])
            if bias.ndim != 4 or any(size not in (1, needed) for size, needed in zip(bias.shape, full, strict=True)):
                raise ValueError(
                    f"bias has shape {list(bias.shape)}; expected {list(full)}, or 1 in place of any of them"
                )
        self.mask.check(q.shape[0], q.shape[2], k.shape[2], q.device)


class OutputGradient(NamedTuple):
    """The output of a forward pass and its gradient, from which a backward pass is computed.

    out       [batch, heads, q_len, value_dim]: the output
    lse       [batch, heads, q_len]: the log-sum-exp of each query's scores
    grad_out  gradient of the output
    grad_lse  gradient of the log-sum-exp, where it was used; on `triton` only
    """

    out: Tensor
    lse: Tensor
    grad_out: Tensor
    grad_lse: Tensor | None = None

    def check(self, inputs: AttentionInputs) -> None:
        """Raise ValueError unless the tensors fit the inputs."""
        rows, value_dim = tuple(inputs.q.shape[:3]), inputs.v.shape[3]
        for name, shape, expected in (
            ("out", self.out.shape, (*rows, value_dim)),
            ("lse", self.lse.shape, rows),
            ("grad_out", self.grad_out.shape, (*rows, value_dim)),
        ):
            if tuple(shape) != expected:
                raise ValueError(f"{name} has shape {list(shape)}; expected {list(expected)} for these q and v")


Gradients = tuple[
    Float[Tensor, "batch heads q_len head_dim"],
    Float[Tensor, "batch kv_heads k_len head_dim"],
    Float[Tensor, "batch kv_heads k_len value_dim"],
]
"""The gradients of q, k and v."""


def oracle_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where the device supports it (Apple's GPUs do not), else float32."""
    return torch.float32 if device.type == "mps" else torch.float64
