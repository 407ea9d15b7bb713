"""The operators of a transformer, each fused into one step with its way back written out by hand.

All of them could be composed from `Tensor`'s own operators, and the tests compose some of them so as to check. Fused, a whole
layer is one note for the walk back instead of six, and its inner loop touches each row once: in pure Python that is
the difference between a lesson and a wait. Deriving the rules by hand once is also the best way to trust autograd.
"""

import math
from collections.abc import Sequence
from itertools import repeat
from operator import add, mul

from shared.stdlib.autograd import Gradients
from shared.stdlib.dot import dot_products
from shared.stdlib.shapes import checked_axis, columns_of, rows_of
from shared.stdlib.tensor import Tensor, record_operation


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias, along the last axis: [..., in] → [..., out], with weight [out, in] and bias [out].

    Raises ValueError when the last axis of x is not as wide as a row of `weight`.
    """
    width_out, width_in = weight.shape
    if x.shape[-1:] != (width_in,):
        raise ValueError(
            f"linear: x of shape {x.shape} must end in {width_in}, the width of a row of weight {weight.shape}"
        )
    inputs, weights = x.data, weight.data
    rows = rows_of(inputs, width_in)
    data = dot_products(rows, rows_of(weights, width_in))
    if bias is not None:
        data = list(map(add, data, bias.data * len(rows)))

    def rule(gradient: list[float]) -> Gradients:
        # y[m, o] = Σᵢ x[m, i] w[o, i] + b[o]: each of the three gradients sums g[m, o] over the index its tensor lacks.
        by_output = columns_of(gradient, width_out)
        to_x = dot_products(rows_of(gradient, width_out), columns_of(weights, width_in)) if x.requires_grad else None
        to_weight = dot_products(by_output, columns_of(inputs, width_in)) if weight.requires_grad else None
        return (to_x, to_weight) if bias is None else (to_x, to_weight, list(map(sum, by_output)))

    return record_operation(data, (*x.shape[:-1], width_out), (x, weight) if bias is None else (x, weight, bias), rule)


def embedding(indices: Sequence[int], table: Tensor) -> Tensor:
    """Rows of `table` [entries, width] picked by number: [len(indices), width]. Raises IndexError for a number out of range."""
    entries, width = table.shape
    for index in indices:
        if not 0 <= index < entries:
            raise IndexError(f"embedding: index {index}, but the table has entries 0 to {entries - 1}")
    data = [x for index in indices for x in table.data[index * width : (index + 1) * width]]

    def rule(gradient: list[float]) -> Gradients:
        to_table = [0.0] * len(table.data)
        for index, row in zip(indices, rows_of(gradient, width), strict=True):
            start = index * width
            to_table[start : start + width] = map(add, to_table[start : start + width], row)
        return (to_table,)

    return record_operation(data, (len(indices), width), (table,), rule)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Shift and scale every row (last axis) to mean 0 and variance 1, then by a learned scale and shift (arXiv:1607.06450, eq. 3)."""
    width = _checked_norm_width("layer_norm", x, weight)
    scale, data, normalized, inverse_deviations = weight.data, [], [], []
    for row in rows_of(x.data, width):
        mean = sum(row) / width
        # The distance to a row of means is the square root of the summed squares.
        variance = math.dist(row, (mean,) * width) ** 2 / width
        inverse = 1.0 / math.sqrt(variance + eps)
        unit = [(value - mean) * inverse for value in row]
        inverse_deviations.append(inverse)
        normalized += unit
        data += map(add, map(mul, unit, scale), bias.data)

    def rule(gradient: list[float]) -> Gradients:
        to_x = []
        for g, unit, inverse in zip(
            rows_of(gradient, width), rows_of(normalized, width), inverse_deviations, strict=True
        ):
            # Mean and deviation depend on every entry. What is left of the gradient is the part that neither a common
            # shift nor a common scale could bring about: its components along (1, …, 1) and along `unit` drop out.
            pull = list(map(mul, g, scale))
            along_ones = sum(pull) / width
            along_unit = sum(map(mul, pull, unit)) / width
            to_x += [(p - along_ones - u * along_unit) * inverse for p, u in zip(pull, unit, strict=True)]
        to_weight = list(map(sum, columns_of(list(map(mul, gradient, normalized)), width)))
        return to_x, to_weight, list(map(sum, columns_of(gradient, width)))

    return record_operation(data, x.shape, (x, weight, bias), rule)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale every row to a mean square of 1, then by a learned scale (arXiv:1910.07467, eq. 4): LayerNorm without the mean."""
    width = _checked_norm_width("rms_norm", x, weight)
    scale, data, normalized, inverses = weight.data, [], [], []
    for row in rows_of(x.data, width):
        inverse = 1.0 / math.sqrt(math.hypot(*row) ** 2 / width + eps)
        unit = [value * inverse for value in row]
        inverses.append(inverse)
        normalized += unit
        data += map(mul, unit, scale)

    def rule(gradient: list[float]) -> Gradients:
        to_x = []
        for g, unit, inverse in zip(rows_of(gradient, width), rows_of(normalized, width), inverses, strict=True):
            pull = list(map(mul, g, scale))
            along_unit = sum(map(mul, pull, unit)) / width
            to_x += [(p - u * along_unit) * inverse for p, u in zip(pull, unit, strict=True)]
        return to_x, list(map(sum, columns_of(list(map(mul, gradient, normalized)), width)))

    return record_operation(data, x.shape, (x, weight), rule)


def _checked_norm_width(name: str, x: Tensor, weight: Tensor) -> int:
    if x.shape[-1:] != weight.shape:
        raise ValueError(f"{name}: x of shape {x.shape} must end in {weight.shape}, the shape of the weight")
    return weight.shape[0]


def gelu(x: Tensor) -> Tensor:
    """x Φ(x): each number times the chance that a standard normal draw lies below it (arXiv:1606.08415, exact form)."""
    values = x.data
    below = [0.5 + 0.5 * math.erf(value * math.sqrt(0.5)) for value in values]

    def rule(gradient: list[float]) -> Gradients:
        # (x Φ)' = Φ + x φ, with φ the bell curve whose area Φ measures.
        peak, exp = 1.0 / math.sqrt(2.0 * math.pi), math.exp
        return ([g * (b + v * peak * exp(-0.5 * v * v)) for g, b, v in zip(gradient, below, values, strict=True)],)

    return record_operation(list(map(mul, values, below)), x.shape, (x,), rule)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ), written so that no exponential overflows."""
    gates = [0.5 + 0.5 * math.tanh(0.5 * value) for value in x.data]
    return record_operation(
        gates, x.shape, (x,), lambda g: ([s * gate * (1.0 - gate) for s, gate in zip(g, gates, strict=True)],)
    )


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x) (arXiv:1702.03118)."""
    return x * sigmoid(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Positive numbers in the proportions of eˣ that sum to 1 along an axis. -inf gets 0; a run of nothing but -inf gives zeros."""
    axis = checked_axis(axis, x.shape)
    if axis != len(x.shape) - 1:
        return softmax(x.transpose(axis, -1)).transpose(axis, -1)
    width, exp = x.shape[-1], math.exp
    result = []
    for row in rows_of(x.data, width):
        # Subtracting the greatest changes no proportion and keeps every exponential at 1 or below.
        greatest = max(row)
        if greatest == -math.inf:
            result += repeat(0.0, width)
            continue
        powers = [exp(value - greatest) for value in row]
        inverse = 1.0 / sum(powers)
        result += [power * inverse for power in powers]

    def rule(gradient: list[float]) -> Gradients:
        to_x = []
        for g, share in zip(rows_of(gradient, width), rows_of(result, width), strict=True):
            # Raising one number takes from all: only what lies above the shares' own average of g has an effect.
            average = sum(map(mul, g, share))
            to_x += [s * (slope - average) for s, slope in zip(share, g, strict=True)]
        return (to_x,)

    return record_operation(result, x.shape, (x,), rule)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(query · keyᵀ / √head_dim + mask) · value (arXiv:1706.03762, eq. 1).

    Shapes are [..., tokens, head_dim]. `mask` is added to the scores and broadcasts: 0 where a query attends, −inf where not.
    """
    return attention_weights(query, key, mask) @ value


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the attention probabilities softmax(query · keyᵀ / √head_dim + mask): [..., tokens, keys]."""
    scores = query @ key.transpose() * (1.0 / math.sqrt(query.shape[-1]))
    return softmax(scores if mask is None else scores + mask)


def log_softmax(x: Tensor) -> Tensor:
    """The logarithm of `softmax` along the last axis, without ever taking the logarithm of a number rounded to 0."""
    width = x.shape[-1]
    result = []
    for row in rows_of(x.data, width):
        total = log_sum_exp(row)
        result += [value - total for value in row]

    def rule(gradient: list[float]) -> Gradients:
        to_x = []
        for g, logs in zip(rows_of(gradient, width), rows_of(result, width), strict=True):
            total = sum(g)
            to_x += [slope - math.exp(log) * total for slope, log in zip(g, logs, strict=True)]
        return (to_x,)

    return record_operation(result, x.shape, (x,), rule)


def log_sum_exp(row: Sequence[float]) -> float:
    """log Σ eˣ with the greatest x taken out first, so that no exponential overflows and the sum is at least 1."""
    greatest = max(row)
    return greatest + math.log(sum(math.exp(value - greatest) for value in row))


def cross_entropy(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """The mean surprise -log p(target) over rows of logits [rows, classes], in nats.

    Raises ValueError when there is not one target a row, IndexError when one names no class.
    """
    if len(logits.shape) != 2 or logits.shape[0] != len(targets):
        raise ValueError(
            f"cross_entropy: logits of shape {logits.shape} need rows × classes and a target a row, not {len(targets)}"
        )
    rows, classes = logits.shape
    for target in targets:
        if not 0 <= target < classes:
            raise IndexError(f"cross_entropy: target {target}, but there are classes 0 to {classes - 1}")
    logs = log_softmax(Tensor(logits.data, logits.shape)).data
    loss = -sum(logs[row * classes + target] for row, target in enumerate(targets)) / rows

    def rule(gradient: list[float]) -> Gradients:
        # The slope is what the model said minus what is true: p - 1 at the target, p elsewhere.
        share = gradient[0] / rows
        slopes = [math.exp(log) * share for log in logs]
        for row, target in enumerate(targets):
            slopes[row * classes + target] -= share
        return (slopes,)

    return record_operation([loss], (), (logits,), rule)


def normalize(x: Tensor) -> Tensor:
    """Scale every row (last axis) to length 1."""
    return x / (x * x).sum(-1, keepdims=True).sqrt()


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along one axis; the other axes must agree (ValueError if not)."""
    first = parts[0].shape
    axis = checked_axis(axis, first)
    for part in parts:
        if part.shape[:axis] + part.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"shapes {[part.shape for part in parts]} differ elsewhere than on axis {axis}")
    before = math.prod(first[:axis])
    widths = [len(part.data) // before if before else 0 for part in parts]
    data = [
        x
        for block in range(before)
        for part, w in zip(parts, widths, strict=True)
        for x in part.data[block * w : (block + 1) * w]
    ]
    shape = (*first[:axis], sum(part.shape[axis] for part in parts), *first[axis + 1 :])

    def rule(gradient: list[float]) -> Gradients:
        shares, start, total = [], 0, sum(widths)
        for width in widths:
            blocks = [gradient[block * total + start : block * total + start + width] for block in range(before)]
            shares.append([x for block in blocks for x in block])
            start += width
        return tuple(shares)

    return record_operation(data, shape, tuple(parts), rule)
