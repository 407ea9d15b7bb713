"""The arguments of a kernel launch: where tensors lie, how scores are scaled, and how large the tiles are."""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.inputs import AttentionInputs
from shared.attention.mask import Mask

UNBOUNDED = 2**30
# Vectors start at multiples of eight elements, so that 16 bytes are copied at once (eight 16-bit numbers).
ALIGNMENT = tl.constexpr(8)


class Rows(NamedTuple):
    """A tensor [batch, heads, length, dim]: its first element, and the strides of batch, head and token."""

    pointer: Tensor
    batch_stride: int
    head_stride: int
    token_stride: int

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        return cls(x, x.stride(0), x.stride(1), x.stride(2))


class InputRows(NamedTuple):
    """The tensors q, k and v of an attention call."""

    q: Rows
    k: Rows
    v: Rows

    @classmethod
    def of(cls, inputs: AttentionInputs) -> "InputRows":
        return cls(Rows.of(inputs.q), Rows.of(inputs.k), Rows.of(inputs.v))


def aligned(x: Tensor) -> Tensor:
    """Return [batch, heads, length, dim] itself if its vectors are aligned as the kernels need them, else a copy."""
    strides = [stride for stride, size in zip(x.stride()[:3], x.shape, strict=False) if size > 1]
    if x.stride(3) == 1 and x.data_ptr() % 16 == 0 and all(stride % ALIGNMENT.value == 0 for stride in strides):
        return x
    batch, heads, length, dim = x.shape
    return empty_rows(batch, heads, length, dim, like=x).copy_(x)


def empty_rows(batch: int, heads: int, length: int, dim: int, *, like: Tensor) -> Tensor:
    """Allocate [batch, heads, length, dim] with heads adjacent in memory, as the next linear layer reads them."""
    width = -(-dim // ALIGNMENT.value) * ALIGNMENT.value
    return torch.empty(batch, length, heads, width, dtype=like.dtype, device=like.device)[..., :dim].transpose(1, 2)


class Scores(NamedTuple):
    """How the product of a query and a key becomes a score in base 2: tanh(product · inner) · outer.

    Without a softcap, `inner` is None and the score is product · outer. 2^(x · log₂ e) is e^x, and the hardware's only
    exponential is 2^x: the factor log₂ e is part of `outer`. `scale` is the factor of the gradients of q and k.
    """

    inner: float | None
    outer: float
    scale: float

    @classmethod
    def of(cls, scale: float, softcap: float | None) -> "Scores":
        if softcap is None:
            return cls(None, scale * math.log2(math.e), scale)
        return cls(scale / softcap, softcap * math.log2(math.e), scale)


class Reach(NamedTuple):
    """How far a query attends: fewer than `window` positions away, `behind` tokens back and `ahead` tokens forward."""

    window: int | None
    behind: int
    ahead: int

    @classmethod
    def of(cls, mask: Mask) -> "Reach":
        distance = UNBOUNDED if mask.window is None else min(mask.window - 1, UNBOUNDED)
        return cls(mask.window, distance, 0 if mask.causal else distance)


class Shape(NamedTuple):
    """The constants that a kernel is compiled for. Heads are padded to the next power of two, where tiles are full."""

    CAUSAL: bool
    HEAD_DIM: int
    VALUE_DIM: int
    WIDTH: int
    VALUE_WIDTH: int
    BLOCK_Q: int
    BLOCK_K: int
    PRECISION: str

    @classmethod
    def of(cls, inputs: AttentionInputs, block_q: int, block_k: int) -> "Shape":
        # float32 on tensor cores: three passes keep its precision, one is enough if PyTorch is set to allow it.
        passes = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        dim, value_dim = inputs.q.shape[3], inputs.v.shape[3]
        return cls(inputs.mask.causal, dim, value_dim, padded(dim), padded(value_dim), block_q, block_k, passes)


class Tiles(NamedTuple):
    """A tile of scores is block_q × block_k; `warps` compute it, and `stages` blocks are being loaded at a time."""

    block_q: int
    block_k: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


# By kernel and padded width (the larger of head and value), chosen from the compiler's reports for sm_90: no register
# spills, and shared memory holds the stages (benchmarks/attention_log.md). First 16-bit dtypes, then float32, which
# needs three products in place of one and is meant to be exact, not fast: from width 128 on some of it spills.
HALF = {
    "forward": {64: Tiles(128, 64, 8, 3), 128: Tiles(128, 64, 8, 3), 256: Tiles(128, 32, 8, 3)},
    "keys": {64: Tiles(64, 128, 8, 2), 128: Tiles(32, 128, 8, 3), 256: Tiles(16, 64, 8, 2)},
    "queries": {64: Tiles(128, 64, 8, 3), 128: Tiles(128, 64, 8, 3), 256: Tiles(64, 32, 8, 2)},
    "decode": {64: Tiles(16, 128, 4, 3), 128: Tiles(16, 64, 4, 3), 256: Tiles(16, 32, 4, 3)},
}
SINGLE = {
    "forward": {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(32, 16, 4, 2)},
    "keys": {64: Tiles(32, 32, 4, 2), 128: Tiles(32, 32, 8, 1), 256: Tiles(16, 16, 4, 1)},
    "queries": {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 8, 1), 256: Tiles(16, 16, 4, 1)},
    "decode": {64: Tiles(16, 64, 4, 2), 128: Tiles(16, 32, 4, 2), 256: Tiles(16, 16, 4, 2)},
}


def tiles(kernel: str, q: Tensor, v: Tensor) -> Tiles:
    """Return the tile sizes of a kernel for these tensors."""
    if triton.knobs.runtime.interpret:
        # Small tiles, so that small problems have ragged, full, partial and empty ones.
        return Tiles(16, 16, 4, 1)
    table = SINGLE if q.dtype == torch.float32 else HALF
    return table[kernel][max(padded(q.shape[3]), padded(v.shape[3]), 64)]


def padded(count: int) -> int:
    """Return the next power of two, at least 16: the sizes that a tensor core multiplies."""
    return max(16, 1 << (count - 1).bit_length())


def multiprocessors(device: torch.device) -> int:
    """Return how many programs the device runs at once, at least; a substitute where there is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
