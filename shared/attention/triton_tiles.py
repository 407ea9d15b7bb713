"""What a kernel is told when it is launched: where its tensors lie, how scores are made, and how large its tiles are."""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shared.attention.mask import Mask

UNBOUNDED = 2**30
# Vectors begin at multiples of eight numbers, so that 16 bytes are moved at once (eight 16-bit numbers).
ALIGNED = tl.constexpr(8)


class Rows(NamedTuple):
    """A tensor [batch, heads, length, dim]: its first number, and the steps to the next batch row, head and token."""

    first: Tensor
    batch: int
    head: int
    row: int

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        return cls(x, x.stride(0), x.stride(1), x.stride(2))


def aligned(x: Tensor) -> Tensor:
    """The tensor [batch, heads, length, dim] itself if its vectors lie as the kernels read them, else a copy."""
    steps = [step for step, size in zip(x.stride()[:3], x.shape, strict=False) if size > 1]
    if x.stride(3) == 1 and x.data_ptr() % 16 == 0 and all(step % ALIGNED.value == 0 for step in steps):
        return x
    return empty_rows(*x.shape, like=x).copy_(x)


def empty_rows(batch: int, heads: int, length: int, dim: int, *, like: Tensor) -> Tensor:
    """Room for [batch, heads, length, dim]. Heads lie side by side: the projection that follows reads them so."""
    width = -(-dim // ALIGNED.value) * ALIGNED.value
    return torch.empty(batch, length, heads, width, dtype=like.dtype, device=like.device)[..., :dim].transpose(1, 2)


class Scores(NamedTuple):
    """How the product of a query and a key becomes a score in base 2: tanh(product · squash) · sharpness.

    2^(x · log₂ e) is e^x, and the hardware's only exponential is 2^x: the factor goes into the scale once.
    """

    squash: float | None
    sharpness: float

    @classmethod
    def of(cls, scale: float, softcap: float | None) -> "Scores":
        if softcap is None:
            return cls(None, scale * math.log2(math.e))
        return cls(scale / softcap, softcap * math.log2(math.e))


class Reach(NamedTuple):
    """How far a query sees: fewer than `window` positions either way, `behind` and `ahead` of where it stands."""

    window: int | None
    behind: int
    ahead: int

    @classmethod
    def of(cls, mask: Mask) -> "Reach":
        around = UNBOUNDED if mask.window is None else min(mask.window - 1, UNBOUNDED)
        return cls(mask.window, around, 0 if mask.causal else around)


class Shape(NamedTuple):
    """What a kernel is compiled for. Heads are computed at the next power of two, where tiles are whole."""

    CAUSAL: bool
    HEAD_DIM: int
    VALUE_DIM: int
    WIDTH: int
    VALUE_WIDTH: int
    BLOCK_Q: int
    BLOCK_K: int
    PRECISION: str

    @classmethod
    def of(cls, q: Tensor, v: Tensor, mask: Mask, block_q: int, block_k: int) -> "Shape":
        # float32 on tensor cores: three passes keep its precision, one is what PyTorch may be told is enough.
        passes = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
        dim, value_dim = q.shape[3], v.shape[3]
        return cls(mask.causal, dim, value_dim, padded(dim), padded(value_dim), block_q, block_k, passes)


class Tiles(NamedTuple):
    """A tile of scores is block_q × block_k; `warps` share it, and `stages` blocks are on their way from memory."""

    block_q: int
    block_k: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


# By kernel and padded width (the larger of head and value), chosen from what the compiler reports for sm_90:
# nothing spills and shared memory holds the stages (benchmarks/attention_log.md). First 16-bit numbers, then float32,
# which takes three products for one and is there to be right, not fast: from 128 wide on some of it spills.
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
    """The tile of a kernel for these tensors."""
    if triton.knobs.runtime.interpret:
        # Small ones, so that small problems have ragged, full, partial and empty tiles.
        return Tiles(16, 16, 4, 1)
    table = SINGLE if q.dtype == torch.float32 else HALF
    return table[kernel][max(padded(q.shape[3]), padded(v.shape[3]), 64)]


def padded(count: int) -> int:
    """The next power of two, at least 16: what a tensor core multiplies."""
    return max(16, 1 << (count - 1).bit_length())


def multiprocessors(device: torch.device) -> int:
    """How many programs the device computes at once, at least; a stand-in where there is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
