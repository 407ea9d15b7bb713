"""How kernels are launched: tile sizes by head width and number type, and the small numbers they are given."""

import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from shared.attention.mask import Mask

UNBOUNDED = 2**30


class Tiles(NamedTuple):
    """A tile of scores is block_q × block_k; `warps` share it, and `stages` blocks are on their way from memory."""

    block_q: int
    block_k: int
    warps: int
    stages: int


class Scores(NamedTuple):
    """How the product of a query and a key becomes a score in base 2: tanh(product · squash) · sharpness."""

    squash: float | None
    sharpness: float

    @classmethod
    def of(cls, scale: float, softcap: float | None) -> "Scores":
        """2^(x · log₂ e) is e^x: the factor goes into the scale, and the hardware's exp2 needs no other."""
        if softcap is None:
            return cls(None, scale * math.log2(math.e))
        return cls(scale / softcap, softcap * math.log2(math.e))


# For 16-bit numbers, by kernel and padded width (the larger of head and value); measured by none yet on a GPU:
# chosen so that nothing spills and shared memory holds the stages (benchmarks/attention_log.md).
TABLE = {
    "forward": {64: Tiles(128, 128, 4, 3), 128: Tiles(128, 128, 8, 2), 256: Tiles(128, 64, 8, 2)},
    "keys": {64: Tiles(64, 128, 8, 2), 128: Tiles(64, 128, 8, 2), 256: Tiles(32, 64, 8, 1)},
    "queries": {64: Tiles(128, 64, 8, 2), 128: Tiles(128, 64, 8, 2), 256: Tiles(64, 32, 8, 1)},
    "decode": {64: Tiles(16, 128, 4, 3), 128: Tiles(16, 64, 4, 3), 256: Tiles(16, 32, 4, 3)},
}


def tiles(kernel: str, q: Tensor, v: Tensor) -> Tiles:
    """The tile of a kernel for these tensors."""
    width = max(padded(q.shape[3]), padded(v.shape[3]), 64)
    if triton.knobs.runtime.interpret:
        # The interpreter: small tiles, so that small problems have ragged, full and empty ones.
        return Tiles(16, 16, 4, 1)
    tile = TABLE[kernel][width]
    if q.dtype == torch.float32:
        tile = Tiles(max(tile.block_q // 2, 16), max(tile.block_k // 2, 16), tile.warps, min(tile.stages, 2))
    return tile


def padded(dim: int) -> int:
    """The width at which a head of `dim` numbers is computed: a power of two, at least 16."""
    return max(16, 1 << (dim - 1).bit_length())


def precision(q: Tensor) -> str:
    """How float32 is multiplied: three passes of the tensor cores, or one where PyTorch is told that this will do."""
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def reach(mask: Mask) -> tuple[int, int]:
    """How many positions a query sees backwards and forwards, itself aside."""
    around = UNBOUNDED if mask.window is None else min(mask.window - 1, UNBOUNDED)
    return around, 0 if mask.causal else around


def strides(x: Tensor) -> tuple[int, int, int]:
    """Steps in memory from one batch row, head and token to the next; numbers of one vector lie side by side."""
    return x.stride(0), x.stride(1), x.stride(2)


def multiprocessors(device: torch.device) -> int:
    """How many programs the device computes at once, at least; a stand-in where there is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
