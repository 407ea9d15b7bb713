"""The operators of a transformer, each fused into one step with a hand-written backward function.

All of them could be composed from `Tensor`'s own operators, and tests compare some of them with such compositions. A
fused layer records one operation instead of six, and its inner loop visits each row once. In pure Python this makes
training several times faster. Deriving these gradients by hand once is also the best way to trust autograd.
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
    """Apply a linear layer to the last axis: x · weightᵀ + bias.

    x [..., in], weight [out, in], bias [out] → [..., out].
    Raises ValueError when the last axis of x does not have size `in`.
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

    def backward(gradient: list[float]) -> Gradients:
        # y[m, o] = Σᵢ x[m, i] w[o, i] + b[o]: each gradient sums g[m, o] over the index that its tensor lacks.
        by_output = columns_of(gradient, width_out)
        to_x = dot_products(rows_of(gradient, width_out), columns_of(weights, width_in)) if x.requires_grad else None
        to_weight = dot_products(by_output, columns_of(inputs, width_in)) if weight.requires_grad else None
        return (to_x, to_weight) if bias is None else (to_x, to_weight, list(map(sum, by_output)))

    parents = (x, weight) if bias is None else (x, weight, bias)
    return record_operation(data, (*x.shape[:-1], width_out), parents, backward)


def embedding(indices: Sequence[int], table: Tensor) -> Tensor:
    """Return rows of a table by index.

    table [entries, width] → [len(indices), width]. Raises IndexError for an index out of range.
    """
    entries, width = table.shape
    for index in indices:
        if not 0 <= index < entries:
            raise IndexError(f"embedding: index {index}, but the table has entries 0 to {entries - 1}")
    data = [x for index in indices for x in table.data[index * width : (index + 1) * width]]

    def backward(gradient: list[float]) -> Gradients:
        to_table = [0.0] * len(table.data)
        for index, row in zip(indices, rows_of(gradient, width), strict=True):
            start = index * width
            to_table[start : start + width] = map(add, to_table[start : start + width], row)
        return (to_table,)

    return record_operation(data, (len(indices), width), (table,), backward)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalize every row to mean 0 and variance 1, then scale and shift it (arXiv:1607.06450, eq. 3).

    x [..., width], weight [width], bias [width] → [..., width].
    """
    width = _checked_norm_width("layer_norm", x, weight)
    scale = weight.data
    data: list[float] = []
    normalized: list[float] = []
    inverse_stds: list[float] = []
    for row in rows_of(x.data, width):
        mean = sum(row) / width
        # The distance to a row of means is the square root of the summed squares.
        variance = math.dist(row, (mean,) * width) ** 2 / width
        inverse = 1.0 / math.sqrt(variance + eps)
        unit = [(value - mean) * inverse for value in row]
        inverse_stds.append(inverse)
        normalized += unit
        data += map(add, map(mul, unit, scale), bias.data)

    def backward(gradient: list[float]) -> Gradients:
        to_x: list[float] = []
        for g, unit, inverse in zip(rows_of(gradient, width), rows_of(normalized, width), inverse_stds, strict=True):
            # Mean and std depend on every entry. The normalized row does not change with a common shift or a common
            # scale, so the components of the gradient along (1, …, 1) and along `unit` are removed.
            to_unit = list(map(mul, g, scale))
            along_ones = sum(to_unit) / width
            along_unit = sum(map(mul, to_unit, unit)) / width
            to_x += [(p - along_ones - u * along_unit) * inverse for p, u in zip(to_unit, unit, strict=True)]
        to_weight = list(map(sum, columns_of(list(map(mul, gradient, normalized)), width)))
        return to_x, to_weight, list(map(sum, columns_of(gradient, width)))

    return record_operation(data, x.shape, (x, weight, bias), backward)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalize every row to mean square 1, then scale it (arXiv:1910.07467, eq. 4): LayerNorm without the mean.

    x [..., width], weight [width] → [..., width].
    """
    width = _checked_norm_width("rms_norm", x, weight)
    scale = weight.data
    data: list[float] = []
    normalized: list[float] = []
    inverses: list[float] = []
    for row in rows_of(x.data, width):
        inverse = 1.0 / math.sqrt(math.hypot(*row) ** 2 / width + eps)
        unit = [value * inverse for value in row]
        inverses.append(inverse)
        normalized += unit
        data += map(mul, unit, scale)

    def backward(gradient: list[float]) -> Gradients:
        to_x: list[float] = []
        for g, unit, inverse in zip(rows_of(gradient, width), rows_of(normalized, width), inverses, strict=True):
            to_unit = list(map(mul, g, scale))
            along_unit = sum(map(mul, to_unit, unit)) / width
            to_x += [(p - u * along_unit) * inverse for p, u in zip(to_unit, unit, strict=True)]
        return to_x, list(map(sum, columns_of(list(map(mul, gradient, normalized)), width)))

    return record_operation(data, x.shape, (x, weight), backward)


def _checked_norm_width(name: str, x: Tensor, weight: Tensor) -> int:
    if x.shape[-1:] != weight.shape:
        raise ValueError(f"{name}: x of shape {x.shape} must end in {weight.shape}, the shape of the weight")
    return weight.shape[0]


def gelu(x: Tensor) -> Tensor:
    """Return x Φ(x), with Φ the cumulative distribution of the standard normal (arXiv:1606.08415, exact form)."""
    values = x.data
    cdf = [0.5 + 0.5 * math.erf(value * math.sqrt(0.5)) for value in values]

    def backward(gradient: list[float]) -> Gradients:
        # (x Φ)' = Φ + x φ, with φ the density of the standard normal.
        peak, exp = 1.0 / math.sqrt(2.0 * math.pi), math.exp
        return ([g * (c + v * peak * exp(-0.5 * v * v)) for g, c, v in zip(gradient, cdf, values, strict=True)],)

    return record_operation(list(map(mul, values, cdf)), x.shape, (x,), backward)


def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + e⁻ˣ), computed so that no exponential overflows."""
    result = [0.5 + 0.5 * math.tanh(0.5 * value) for value in x.data]

    def backward(gradient: list[float]) -> Gradients:
        return ([g * y * (1.0 - y) for g, y in zip(gradient, result, strict=True)],)

    return record_operation(result, x.shape, (x,), backward)


def silu(x: Tensor) -> Tensor:
    """Return x · sigmoid(x) (arXiv:1702.03118)."""
    return x * sigmoid(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return the softmax along an axis. An entry of -inf gets 0; a slice of -inf alone gives zeros."""
    axis = checked_axis(axis, x.shape)
    if axis != len(x.shape) - 1:
        return softmax(x.transpose(axis, -1)).transpose(axis, -1)
    width, exp = x.shape[-1], math.exp
    result: list[float] = []
    for row in rows_of(x.data, width):
        # Subtracting the maximum changes no ratio and keeps every exponential at 1 or below.
        maximum = max(row)
        if maximum == -math.inf:
            result += repeat(0.0, width)
            continue
        powers = [exp(value - maximum) for value in row]
        inverse = 1.0 / sum(powers)
        result += [power * inverse for power in powers]

    def backward(gradient: list[float]) -> Gradients:
        to_x: list[float] = []
        for g, probabilities in zip(rows_of(gradient, width), rows_of(result, width), strict=True):
            # Raising one logit lowers all other probabilities: subtract the mean gradient under the probabilities.
            mean = sum(map(mul, g, probabilities))
            to_x += [p * (g_i - mean) for p, g_i in zip(probabilities, g, strict=True)]
        return (to_x,)

    return record_operation(result, x.shape, (x,), backward)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return scaled dot-product attention, softmax(query · keyᵀ / √head_dim + mask) · value (arXiv:1706.03762, eq. 1).

    query [..., tokens, head_dim], key [..., keys, head_dim], value [..., keys, value_dim] → [..., tokens, value_dim].
    `mask` is added to the scores [..., tokens, keys] and broadcasts: 0 where a query attends to a key, -inf elsewhere.
    """
    return attention_weights(query, key, mask) @ value


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the attention probabilities softmax(query · keyᵀ / √head_dim + mask): [..., tokens, keys]."""
    scores = query @ key.transpose() * (1.0 / math.sqrt(query.shape[-1]))
    return softmax(scores if mask is None else scores + mask)


def log_softmax(x: Tensor) -> Tensor:
    """Return the logarithm of the softmax along the last axis, without the logarithm of a number rounded to 0."""
    width = x.shape[-1]
    result: list[float] = []
    for row in rows_of(x.data, width):
        total = log_sum_exp(row)
        result += [value - total for value in row]

    def backward(gradient: list[float]) -> Gradients:
        to_x: list[float] = []
        for g, logs in zip(rows_of(gradient, width), rows_of(result, width), strict=True):
            total = sum(g)
            to_x += [g_i - math.exp(log) * total for g_i, log in zip(g, logs, strict=True)]
        return (to_x,)

    return record_operation(result, x.shape, (x,), backward)


def log_sum_exp(row: Sequence[float]) -> float:
    """Return log Σ eˣ with the maximum taken out first, so that no exponential overflows and the sum is at least 1."""
    maximum = max(row)
    return maximum + math.log(sum(math.exp(value - maximum) for value in row))


def cross_entropy(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """Return the mean cross-entropy -log p(target) over rows of logits [rows, classes], in nats.

    Raises ValueError when there is not one target per row, IndexError when a target is not a class.
    """
    if len(logits.shape) != 2 or logits.shape[0] != len(targets):
        raise ValueError(
            f"cross_entropy: logits of shape {logits.shape} need [rows, classes] and one target per row, "
            f"not {len(targets)}"
        )
    rows, classes = logits.shape
    for target in targets:
        if not 0 <= target < classes:
            raise IndexError(f"cross_entropy: target {target}, but there are classes 0 to {classes - 1}")
    logs = log_softmax(Tensor(logits.data, logits.shape)).data
    loss = -sum(logs[row * classes + target] for row, target in enumerate(targets)) / rows

    def backward(gradient: list[float]) -> Gradients:
        # The gradient is the predicted probability minus the true one: p - 1 at the target, p elsewhere.
        scale = gradient[0] / rows
        to_logits = [math.exp(log) * scale for log in logs]
        for row, target in enumerate(targets):
            to_logits[row * classes + target] -= scale
        return (to_logits,)

    return record_operation([loss], (), (logits,), backward)


def normalize(x: Tensor) -> Tensor:
    """Scale every row (last axis) to length 1: [..., width] → [..., width]."""
    return x / (x * x).sum(-1, keepdims=True).sqrt()


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join tensors along one axis. Raises ValueError when another axis differs."""
    first = parts[0].shape
    axis = checked_axis(axis, first)
    for part in parts:
        if part.shape[:axis] + part.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            raise ValueError(f"shapes {[part.shape for part in parts]} differ on an axis other than {axis}")
    blocks = math.prod(first[:axis])
    widths = [len(part.data) // blocks if blocks else 0 for part in parts]
    data = [
        x
        for block in range(blocks)
        for part, width in zip(parts, widths, strict=True)
        for x in part.data[block * width : (block + 1) * width]
    ]
    shape = (*first[:axis], sum(part.shape[axis] for part in parts), *first[axis + 1 :])

    def backward(gradient: list[float]) -> Gradients:
        gradients, start, total = [], 0, sum(widths)
        for width in widths:
            pieces = [gradient[block * total + start : block * total + start + width] for block in range(blocks)]
            gradients.append([x for piece in pieces for x in piece])
            start += width
        return tuple(gradients)

    return record_operation(data, shape, tuple(parts), backward)
