"""Low-rank adaptation: leave the big matrix as it is, and learn a small correction beside it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from shared.finetuning.quantized_linear import QuantizedLinear


class LoRALinear(nn.Module):
    """base(x) + scale · up(down(x)): a frozen layer and a correction of low rank (arXiv:2106.09685, eq. 3).

    `up` starts at zero, so that the adapted layer starts as the layer that it adapts. `scale` is alpha / rank in the
    paper: with it, a change of rank asks for no other learning rate. Dropout is for the correction only.

    Raises ValueError when the rank is not between 1 and the layer's smaller side.
    """

    def __init__(self, base: nn.Linear | QuantizedLinear, rank: int, scale: float, dropout: float = 0.0):
        super().__init__()
        smaller = min(base.in_features, base.out_features)
        if not 1 <= rank <= smaller:
            raise ValueError(
                f"a rank of {rank} for a layer of {base.in_features} → {base.out_features}: expected 1…{smaller}"
            )
        self.base = base.requires_grad_(False)
        self.rank, self.scale = rank, scale
        device = next(tensor.device for tensor in [*base.parameters(), *base.buffers()])
        self.lora_down = nn.Linear(base.in_features, rank, bias=False, device=device)
        self.lora_up = nn.Linear(rank, base.out_features, bias=False, device=device)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)
        self.active = True
        self._before_merging: Tensor | None = None  # no parameter: neither saved nor counted
        # A model that is evaluating must not begin to drop things out because it was adapted.
        self.train(base.training)

    @property
    def merged(self) -> bool:
        """Whether the correction now stands inside the base's own weight."""
        return self._before_merging is not None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if self.merged or not self.active:
            return self.base(x)
        return self._adapted(x)

    def _adapted(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y = self.base(x)
        return y + self._correction(x).to(y.dtype)

    def _correction(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        # The adapter may be more precise than the model that it sits in.
        x = self.dropout(x).to(self.lora_down.weight.dtype)
        return self.scale * self.lora_up(self.lora_down(x))

    def merged_weight(self) -> Float[Tensor, "out in"]:
        """The one matrix that does what base and correction do together, as precise as the correction: W + scale · up · down."""
        update = self.scale * (self.lora_up.weight @ self.lora_down.weight)
        return self.base.weight.to(update.dtype) + update

    def merge(self) -> None:
        """Put the correction into the base's weight: from here on the layer costs what it cost before it was adapted.

        Raises ValueError when it is merged already, or the base is quantized: rounding to a few bits would not keep
        a small correction.
        """
        if self.merged:
            raise ValueError("the adapter is merged already; merging again would add the correction twice")
        if not isinstance(self.base, nn.Linear):
            raise ValueError(
                f"the base is a {type(self.base).__name__}, and a small correction is lost in so few bits; "
                "load the model unquantised, load the adapters, merge them there"
            )
        with torch.no_grad():
            whole = nn.Parameter(self.merged_weight().to(self.base.weight.dtype), requires_grad=False)
        self._before_merging, self.base.weight = self.base.weight.detach(), whole

    def unmerge(self) -> None:
        """Take the correction out again: the old weight was kept, so not a bit of it has changed.

        (Subtracting what was added would leave rounding errors behind, and more with each time.)
        Raises ValueError when nothing is merged.
        """
        if not self.merged:
            raise ValueError("the adapter is not merged, so there is nothing to take out")
        # The model may have moved to another device meanwhile.
        before, self._before_merging = self._before_merging.to(self.base.weight), None
        self.base.weight = nn.Parameter(before, requires_grad=False)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}" + (", merged" if self.merged else "")


class DoRALinear(LoRALinear):
    """A weight taken apart into lengths and directions; lengths learn freely, directions by low rank (arXiv:2402.09353, eq. 5).

    With V = W + scale · up · down, row r of the weight is magnitude[r] · V[r] / ‖V[r]‖: a length for each output.
    (The paper says columns; its code, as here, has one length for each output.) The magnitudes start as the rows' lengths.
    """

    def __init__(self, base: nn.Linear | QuantizedLinear, rank: int, scale: float, dropout: float = 0.0):
        super().__init__(base, rank, scale, dropout)
        with torch.no_grad():
            lengths = torch.linalg.vector_norm(super().merged_weight(), dim=1)
        self.magnitude = nn.Parameter(lengths)

    def _stretch(self) -> Float[Tensor, "out"]:
        """By how much each row of V has to be made longer.

        The lengths of V are taken as constants: their gradient costs much memory and brings nothing (section 4.3).
        """
        with torch.no_grad():
            lengths = torch.linalg.vector_norm(super().merged_weight(), dim=1)
        return self.magnitude / lengths

    def _adapted(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y, bias = self.base(x), self.base.bias
        # A bias is no part of the weight, and is not stretched.
        product = y if bias is None else y - bias
        stretched = (self._stretch() * (product + self._correction(x))).to(y.dtype)
        return stretched if bias is None else stretched + bias

    def merged_weight(self) -> Float[Tensor, "out in"]:
        """The one matrix that the layer multiplies by: magnitude · V / ‖V‖."""
        return self._stretch()[:, None] * super().merged_weight()
