"""Low-rank adaptation: freeze a linear layer and train a low-rank update of its weight (LoRA, DoRA)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from shared.finetuning.quantized_linear import QuantizedLinear


def low_rank_update(
    x: Float[Tensor, "*batch in"], down: Float[Tensor, "rank in"], up: Float[Tensor, "out rank"], scale: float
) -> Float[Tensor, "*batch out"]:
    """Return scale · up · down · x, without forming the product up · down (arXiv:2106.09685, eq. 3)."""
    # exercise 5.9: the low-rank update of LoRA
    return scale * F.linear(F.linear(x, down), up)
    # end exercise


def merge_low_rank(
    weight: Float[Tensor, "out in"], down: Float[Tensor, "rank in"], up: Float[Tensor, "out rank"], scale: float
) -> Float[Tensor, "out in"]:
    """Return weight + scale · up · down in the adapter's precision."""
    # exercise 5.10: merge LoRA into the weight
    update = scale * (up @ down)
    return weight.to(update.dtype) + update
    # end exercise


def dora_row_scale(merged: Float[Tensor, "out in"], magnitude: Float[Tensor, "out"]) -> Float[Tensor, "out"]:
    """Return the factor that gives each row of `merged` the length `magnitude`.

    The row lengths are constants in the backward pass, which saves memory (arXiv:2402.09353, section 4.3).
    """
    # exercise 5.11: the row norm of DoRA
    lengths = torch.linalg.vector_norm(merged.detach(), dim=1)
    return magnitude / lengths
    # end exercise


class LoRALinear(nn.Module):
    """base(x) + scale · up(down(x)): a frozen layer and a low-rank update (arXiv:2106.09685, eq. 3).

    `up` starts at zero, so that the adapted layer starts as the layer that it adapts. `scale` is alpha / rank in the
    paper, which makes the best learning rate nearly independent of the rank. Dropout applies to the update's input.

    Raises ValueError when the rank is not between 1 and the smaller of the layer's two sizes.
    """

    base: nn.Linear | QuantizedLinear

    def __init__(self, base: nn.Linear | QuantizedLinear, rank: int, scale: float, dropout: float = 0.0):
        super().__init__()
        max_rank = min(base.in_features, base.out_features)
        if not 1 <= rank <= max_rank:
            raise ValueError(
                f"a rank of {rank} for a layer of {base.in_features} → {base.out_features}: expected 1…{max_rank}"
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
        self._weight_before_merging: Tensor | None = None  # not a parameter: neither saved nor counted
        # A model in evaluation mode must not start to apply dropout because it was adapted.
        self.train(base.training)

    @property
    def merged(self) -> bool:
        """Whether the update is contained in the base's weight."""
        return self._weight_before_merging is not None

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if self.merged or not self.active:
            return self.base(x)
        return self._adapted(x)

    def _adapted(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y = self.base(x)
        return y + self._update(x).to(y.dtype)

    def _update(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        # The adapter may have a wider dtype than the model.
        x = self.dropout(x).to(self.lora_down.weight.dtype)
        return low_rank_update(x, self.lora_down.weight, self.lora_up.weight, self.scale)

    def merged_weight(self) -> Float[Tensor, "out in"]:
        """Return W + scale · up · down, in the dtype of the update: the weight of base and update together."""
        return merge_low_rank(self.base.weight, self.lora_down.weight, self.lora_up.weight, self.scale)

    def merge(self) -> None:
        """Add the update to the base's weight, so that the layer costs no more than before it was adapted.

        Raises ValueError when it is merged already, or the base is quantized: a small update would be lost in rounding.
        """
        if self.merged:
            raise ValueError("the adapter is merged already; merging again would add the update twice")
        if not isinstance(self.base, nn.Linear):
            raise ValueError(
                f"the base is a {type(self.base).__name__}, in whose few bits a small update is lost; "
                "load the model without quantization, load the adapters, merge them there"
            )
        with torch.no_grad():
            merged = nn.Parameter(self.merged_weight().to(self.base.weight.dtype), requires_grad=False)
        self._weight_before_merging, self.base.weight = self.base.weight.detach(), merged

    def unmerge(self) -> None:
        """Restore the weight from before merging, exactly: it was stored.

        Subtracting the update would leave rounding errors, and more with each time.

        Raises ValueError when the adapter is not merged.
        """
        if self._weight_before_merging is None or not isinstance(self.base, nn.Linear):
            raise ValueError("the adapter is not merged; merge it first")
        # The model may have moved to another device in the meantime.
        weight = self._weight_before_merging.to(self.base.weight)
        self._weight_before_merging = None
        self.base.weight = nn.Parameter(weight, requires_grad=False)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, scale={self.scale:g}" + (", merged" if self.merged else "")


class DoRALinear(LoRALinear):
    """A weight decomposed into magnitudes, which are trained, and directions with a low-rank update (arXiv:2402.09353).

    With V = W + scale · up · down, row r of the weight is magnitude[r] · V[r] / ‖V[r]‖ (eq. 5), so each output has one
    magnitude. (The paper writes columns; its code has one magnitude per output, as here.) The magnitudes start as
    the norms of W's rows.
    """

    def __init__(self, base: nn.Linear | QuantizedLinear, rank: int, scale: float, dropout: float = 0.0):
        super().__init__(base, rank, scale, dropout)
        with torch.no_grad():
            norms = torch.linalg.vector_norm(super().merged_weight(), dim=1)
        self.magnitude = nn.Parameter(norms)

    def _row_scales(self) -> Float[Tensor, "out"]:
        """Return magnitude / ‖V‖, the factor of each row of V.

        The norms of V are treated as constants: their gradient costs much memory and does not help (section 4.3).
        """
        with torch.no_grad():
            merged = super().merged_weight()
            # A row of zeros has no direction. The factor 1 leaves it at zero and lets its update train.
            is_zero = torch.linalg.vector_norm(merged, dim=1) == 0
            merged = merged.masked_fill(is_zero[:, None], 1.0)
            length = merged.shape[1] ** 0.5
        return dora_row_scale(merged, torch.where(is_zero, length, self.magnitude))

    def _adapted(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y, bias = self.base(x), self.base.bias
        # The bias is not part of the weight and is not scaled.
        product = y if bias is None else y - bias
        scaled = (self._row_scales() * (product + self._update(x))).to(y.dtype)
        return scaled if bias is None else scaled + bias

    def merged_weight(self) -> Float[Tensor, "out in"]:
        """Return the weight that the layer multiplies by: magnitude · V / ‖V‖."""
        return self._row_scales()[:, None] * super().merged_weight()
