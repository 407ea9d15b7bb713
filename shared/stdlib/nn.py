"""Modules: parts of a network that own their parameters and define how they are applied.

A module is a Python object whose attributes are tensors, modules, or lists of modules. That is enough to find every
parameter and to name it by its path of attributes, such as `blocks.0.attention.query.weight`. The names and the layout
of each weight are PyTorch's, so that the same weights fit both.
"""

import math
from collections.abc import Sequence
from random import Random

from shared.stdlib import functional
from shared.stdlib.creation import full, normal, uniform
from shared.stdlib.tensor import Tensor


class Module:
    """A part of a network. Define `forward`, and call the module."""

    def forward(self, *inputs):
        raise NotImplementedError(f"{type(self).__name__} has no forward method; define how it is applied")

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    def parameters(self) -> dict[str, Tensor]:
        """Return every tensor with `requires_grad` in this module and its parts, by its path of attributes."""
        parameters: dict[str, Tensor] = {}
        for name, part in vars(self).items():
            if isinstance(part, Tensor) and part.requires_grad:
                parameters[name] = part
            for label, module in _modules_in(name, part):
                parameters.update({f"{label}.{inner}": tensor for inner, tensor in module.parameters().items()})
        return parameters

    def load_parameters(self, values: dict[str, Sequence[float]]) -> None:
        """Set parameters from flat lists by name. Raises ValueError, listing all, when names or sizes do not match."""
        parameters = self.parameters()
        errors = [f"{name}: missing" for name in parameters.keys() - values.keys()]
        errors += [f"{name}: no such parameter" for name in values.keys() - parameters.keys()]
        errors += [
            f"{name}: {len(values[name])} numbers for shape {parameter.shape}"
            for name, parameter in parameters.items()
            if name in values and len(values[name]) != len(parameter.data)
        ]
        if errors:
            raise ValueError("these weights do not match this model: " + "; ".join(sorted(errors)))
        for name, parameter in parameters.items():
            parameter.data = [float(value) for value in values[name]]


def _modules_in(name: str, part: object) -> list[tuple[str, Module]]:
    if isinstance(part, Module):
        return [(name, part)]
    if isinstance(part, list):
        return [(f"{name}.{index}", item) for index, item in enumerate(part) if isinstance(item, Module)]
    return []


class Linear(Module):
    """A linear layer, x · weightᵀ + bias: [..., in] → [..., out].

    Weights are initialized uniformly within ±√(6 / (in + out)), so that neither activations nor gradients grow or
    shrink from layer to layer (Glorot & Bengio 2010, eq. 16).
    """

    def __init__(self, width_in: int, width_out: int, random: Random, bias: bool = True):
        self.weight = uniform(
            (width_out, width_in), math.sqrt(6.0 / (width_in + width_out)), random, requires_grad=True
        )
        self.bias = full((width_out,), 0.0, requires_grad=True) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of learned rows: `count` indices → [count, width]."""

    def __init__(self, entries: int, width: int, random: Random):
        self.weight = normal((entries, width), 0.02, random, requires_grad=True)

    def forward(self, indices: Sequence[int]) -> Tensor:
        return functional.embedding(indices, self.weight)


class LayerNorm(Module):
    """Layer normalization with a learned scale and shift: [..., width] → [..., width] (arXiv:1607.06450)."""

    def __init__(self, width: int, eps: float = 1e-6):
        self.weight = full((width,), 1.0, requires_grad=True)
        self.bias = full((width,), 0.0, requires_grad=True)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Root-mean-square normalization with a learned scale: [..., width] → [..., width] (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float = 1e-6):
        self.weight = full((width,), 1.0, requires_grad=True)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight, self.eps)


class MLP(Module):
    """A two-layer MLP, down(gelu(up(x))), applied to each token separately (arXiv:1706.03762, section 3.3).

    [..., width] → [..., mlp_dim] → [..., width].
    """

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.up = Linear(width, mlp_dim, random)
        self.down = Linear(mlp_dim, width, random)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))


class MultiHeadAttention(Module):
    """Attention in several heads, each on its own slice of the width (arXiv:1706.03762, section 3.2.2).

    x [batch, tokens, width] attends to `context` [batch, context_tokens, context_width], or to itself without one, and
    gives [batch, tokens, width]. `mask` is added to the scores [batch, heads, tokens, context_tokens] and broadcasts.

    context_width  width of the context; `width` when None
    head_dim       width of one head; width / heads when None

    Raises ValueError when the width is not divisible by the number of heads.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        random: Random,
        *,
        context_width: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
    ):
        if head_dim is None and width % heads:
            raise ValueError(f"a width of {width} is not divisible by {heads} heads; choose another width or number")
        context_width = width if context_width is None else context_width
        self.heads, self.head_dim = heads, width // heads if head_dim is None else head_dim
        inner = self.heads * self.head_dim
        self.query = Linear(width, inner, random, bias)
        self.key = Linear(context_width, inner, random, bias)
        self.value = Linear(context_width, inner, random, bias)
        self.output = Linear(inner, width, random, bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        query, key, value = self._split(self.query(x)), self._split(self.key(context)), self._split(self.value(context))
        return self.output(self._merge(functional.attention(query, key, value, mask)))

    def weights(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return the attention probabilities [batch, heads, tokens, context_tokens]."""
        query, key = self._split(self.query(x)), self._split(self.key(x if context is None else context))
        return functional.attention_weights(query, key, mask)

    def _split(self, x: Tensor) -> Tensor:
        """[batch, tokens, heads · head_dim] → [batch, heads, tokens, head_dim]."""
        return x.reshape(*x.shape[:2], self.heads, self.head_dim).permute(0, 2, 1, 3)

    def _merge(self, x: Tensor) -> Tensor:
        """[batch, heads, tokens, head_dim] → [batch, tokens, heads · head_dim]."""
        batch, heads, tokens, head_dim = x.shape
        return x.permute(0, 2, 1, 3).reshape(batch, tokens, heads * head_dim)
