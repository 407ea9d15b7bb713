"""A convolutional network in pure Python: the window that slides, the pool that shrinks, the shortcut that goes deep.

First convolution as its definition says it, and then the same numbers as one matrix product. Then a residual network
(He et al., arXiv:1512.03385), small enough to learn to read handwritten digits that may lie anywhere on a canvas, in about
half a minute, with nothing installed:

    python -S -m lessons.lesson_00_foundations.cnn.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from functools import lru_cache, partial
from operator import eq, itemgetter
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import Gradients, no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.functional import concatenate, cross_entropy, layer_norm, linear
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.shapes import scatter_add
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor, record_operation
from shared.stdlib.training import shuffled_batches, train

# ── Convolution, as its definition says ────────────────────────────────────────────────────────────────────────────────


def output_size(length: int, size: int, stride: int, padding: int) -> int:
    """How many places a window of `size` finds along a side of `length`. Raises ValueError when it finds none."""
    if length + 2 * padding < size:
        raise ValueError(f"a window of {size} does not fit into {length} + 2 · {padding}; pad more or look closer")
    return (length + 2 * padding - size) // stride + 1


def conv2d_direct(images: Tensor, kernel: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """[batch, channels, height, width] and a kernel [out, channels, size, size] → [batch, out, rows, columns].

    y[b, o, r, q] = bias[o] + Σ kernel[o, c, i, j] · x[b, c, r·stride + i - padding, q·stride + j - padding],
    where x is 0 outside of the image. One line of loops a letter, and so slow that it serves as the measure only.
    """
    batch, channels, height, width = images.shape
    out, _, size, _ = kernel.shape
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    x, w = images.data, kernel.data

    def triples():
        """(place in y, place in x, place in the kernel) of every product that the sum has."""
        for b in range(batch):
            for o in range(out):
                for r in range(rows):
                    for q in range(columns):
                        to = ((b * out + o) * rows + r) * columns + q
                        for c in range(channels):
                            for i in range(size):
                                for j in range(size):
                                    down, right = r * stride + i - padding, q * stride + j - padding
                                    if 0 <= down < height and 0 <= right < width:
                                        at = ((b * channels + c) * height + down) * width + right
                                        yield to, at, ((o * channels + c) * size + i) * size + j

    y = [bias.data[o] for _ in range(batch) for o in range(out) for _ in range(rows * columns)]
    for to, at, weight in triples():
        y[to] += x[at] * w[weight]

    def rule(gradient: list[float]) -> Gradients:
        to_x, to_w, to_bias = [0.0] * len(x), [0.0] * len(w), [0.0] * out
        # exercise 0.16: the way back through a convolution
        # Each product x · w of the sum is differentiated twice: by x it leaves w, and by w it leaves x.
        for to, at, weight in triples():
            to_x[at] += gradient[to] * w[weight]
            to_w[weight] += gradient[to] * x[at]
        for place, slope in enumerate(gradient):
            to_bias[place // (rows * columns) % out] += slope
        # end exercise
        return to_x, to_w, to_bias

    return record_operation(y, (batch, out, rows, columns), (images, kernel, bias), rule)


# ── The same as one matrix product ─────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=32)
def window_index(shape: tuple[int, ...], size: int, stride: int, padding: int) -> tuple[int, ...]:
    """For every number of every window, in reading order, its place in the flat image; outside of it, one past the end."""
    batch, channels, height, width = shape
    outside = math.prod(shape)
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    index = []
    for b in range(batch):
        for r in range(rows):
            for q in range(columns):
                for c in range(channels):
                    for down in range(r * stride - padding, r * stride - padding + size):
                        for right in range(q * stride - padding, q * stride - padding + size):
                            inside = 0 <= down < height and 0 <= right < width
                            index.append(((b * channels + c) * height + down) * width + right if inside else outside)
    return tuple(index)


def im2col(images: Tensor, size: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Every window as a row: [batch, channels, height, width] → [batch, rows, columns, channels · size · size].

    A pixel lies in many windows and so stands in many rows; on the way back its gradients are added up.
    """
    batch, channels, height, width = images.shape
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    index = window_index(images.shape, size, stride, padding)
    data = list(itemgetter(*index, 0)([*images.data, 0.0]))[
        :-1
    ]  # one more: of a single place itemgetter makes no tuple

    def rule(gradient: list[float]) -> Gradients:
        return (scatter_add(gradient, index, len(images.data) + 1)[:-1],)

    return record_operation(data, (batch, rows, columns, channels * size * size), (images,), rule)


def conv2d(images: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """What `conv2d_direct` computes: every window, as a row, times every kernel, as a row."""
    out, _, size, _ = kernel.shape
    windows = im2col(images, size, stride, padding)
    return linear(windows, kernel.reshape(out, -1), bias).permute(0, 3, 1, 2)


def _windows(images: Tensor, size: int, stride: int) -> Tensor:
    """[batch, channels, height, width] → [batch, channels, rows, columns, size · size]: windows of each channel alone."""
    batch, channels, height, width = images.shape
    windows = im2col(images.reshape(batch * channels, 1, height, width), size, stride)
    return windows.reshape(batch, channels, *windows.shape[1:])


def max_pool2d(images: Tensor, size: int, stride: int | None = None) -> Tensor:
    """The greatest number of every window: was it there at all? Only that number gets a gradient."""
    return _windows(images, size, stride or size).max(-1)


def mean_pool2d(images: Tensor, size: int, stride: int | None = None) -> Tensor:
    """The mean of every window: how much of it was there? All numbers share the gradient."""
    return _windows(images, size, stride or size).mean(-1)


# ── A residual network (section 3.3 and 4.2) ───────────────────────────────────────────────────────────────────────────


class Conv2d(Module):
    """A convolution without bias, for a norm follows. Weights start with variance 2 / (size² · out) (arXiv:1502.01852, eq. 14)."""

    def __init__(self, channels: int, out: int, random: Random, size: int = 3, stride: int = 1):
        self.weight = normal(
            (out, channels, size, size), math.sqrt(2 / (size * size * out)), random, requires_grad=True
        )
        self.stride, self.padding = stride, size // 2

    def forward(self, images: Tensor) -> Tensor:
        return conv2d(images, self.weight, None, self.stride, self.padding)


class BatchNorm2d(Module):
    """Each channel to mean 0 and variance 1 over all places of all images of the batch, then a learned scale and shift.

    While `training` it also keeps running means of what it measures; afterwards it uses those instead, so that an
    image's answer does not depend on its neighbors in the batch (arXiv:1502.03167, alg. 1 and 2).
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        self.weight = full((channels,), 1.0, requires_grad=True)
        self.bias = full((channels,), 0.0, requires_grad=True)
        self.means, self.variances = [0.0] * channels, [1.0] * channels
        self.momentum, self.eps, self.training = momentum, eps, True

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        # One row a channel. Normalizing a row is what a layer norm does; only the rows are others.
        count = batch * height * width
        rows = images.permute(1, 0, 2, 3).reshape(channels, count)
        if self.training:
            self._remember(rows)
            rows = layer_norm(rows, full((count,), 1.0), full((count,), 0.0), self.eps)
        else:
            spreads = [math.sqrt(variance + self.eps) for variance in self.variances]
            rows = (rows - Tensor(self.means, (channels, 1))) / Tensor(spreads, (channels, 1))
        rows = rows * self.weight.reshape(channels, 1) + self.bias.reshape(channels, 1)
        return rows.reshape(channels, batch, height, width).permute(1, 0, 2, 3)

    def _remember(self, rows: Tensor) -> None:
        channels, count = rows.shape
        for channel in range(channels):
            row = rows.data[channel * count : (channel + 1) * count]
            mean = sum(row) / count
            variance = math.dist(row, [mean] * count) ** 2 / (count - 1)
            self.means[channel] += self.momentum * (mean - self.means[channel])
            self.variances[channel] += self.momentum * (variance - self.variances[channel])


def shortcut(x: Tensor, out: int, stride: int) -> Tensor:
    """x as it is; where the block shrinks and widens, every stride-th pixel, and zeros for the new channels (option A)."""
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    batch, channels, height, width = x.shape
    if out > channels:
        x = concatenate([x, full((batch, out - channels, height, width), 0.0)], axis=1)
    return x


class ResidualBlock(Module):
    """y = relu(x + F(x)), F two convolutions (eq. 1): what the block has to learn is only the difference."""

    def __init__(self, channels: int, out: int, random: Random, stride: int = 1):
        self.conv1, self.norm1 = Conv2d(channels, out, random, stride=stride), BatchNorm2d(out)
        self.conv2, self.norm2 = Conv2d(out, out, random), BatchNorm2d(out)
        self.out, self.stride = out, stride

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm1(self.conv1(x)).relu()
        branch = self.norm2(self.conv2(branch))
        return (branch + shortcut(x, self.out, self.stride)).relu()


class ResNet(Module):
    """Images [batch, channels, height, width] → logits [batch, classes], over stages of ever wider and smaller maps.

    The mean over all places of the last map is what makes the answer the same wherever the thing lies.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...], blocks: int, pool: int, random: Random):
        self.stem, self.stem_norm, self.pool = Conv2d(channels, widths[0], random), BatchNorm2d(widths[0]), pool
        self.blocks = []
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                self.blocks.append(ResidualBlock(before, width, random, stride=2 if stage and not block else 1))
                before = width
        self.head = Linear(before, classes, random)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(images)).relu()
        x = max_pool2d(x, self.pool) if self.pool > 1 else x
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(-1).mean(-1))

    def norms(self) -> list[BatchNorm2d]:
        return [self.stem_norm, *(norm for block in self.blocks for norm in (block.norm1, block.norm2))]


# ── Learning to read digits wherever they lie ──────────────────────────────────────────────────────────────────────────

CANVAS = 12
BATCH = 16
STEPS, QUICK_STEPS = 330, 20
LEARNING_RATE = 2e-2


def scattered(images: list[list[int]], random: Random) -> list[list[float]]:
    """Each digit at a random place of an empty canvas, ink from 0 to 1."""
    canvases = []
    for image in images:
        top, left = random.randrange(CANVAS - digits.SIDE + 1), random.randrange(CANVAS - digits.SIDE + 1)
        canvas = [0.0] * CANVAS**2
        for row in range(digits.SIDE):
            start = (top + row) * CANVAS + left
            ink = image[row * digits.SIDE : (row + 1) * digits.SIDE]
            canvas[start : start + digits.SIDE] = [value / digits.MAX_PIXEL for value in ink]
        canvases.append(canvas)
    return canvases


def as_tensor(canvases: list[list[float]]) -> Tensor:
    """[batch, 1, CANVAS, CANVAS]."""
    return Tensor([value for canvas in canvases for value in canvas], (len(canvases), 1, CANVAS, CANVAS))


def fit(model: ResNet, training: digits.Digits, steps: int, random: Random) -> list[float]:
    plan = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(plan[step])
        return cross_entropy(model(as_tensor(scattered(batch.images, random))), batch.labels)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="ResNet")


def answers(model: ResNet, canvases: list[list[float]]) -> list[int]:
    """What a trained model reads, a hundred canvases at a time."""
    for norm in model.norms():
        norm.training = False
    found = []
    with no_grad():
        for start in range(0, len(canvases), 100):
            logits = model(as_tensor(canvases[start : start + 100])).tolist()
            found += [row.index(max(row)) for row in logits]
    return found


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = ResNet(1, digits.CLASSES, (6, 12), 1, 2, random)
    losses = fit(model, kept, steps, random)
    canvases = scattered(held_out.images, random)
    found = answers(model, canvases)
    shown = digits.Digits(scattered(kept.images, random), kept.labels)

    def accuracy(found: list[int]) -> float:
        return sum(map(eq, found, held_out.labels)) / len(found)

    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "accuracy": accuracy(found),
        "baseline_accuracy": accuracy(digits.classify_by_nearest_mean(shown, canvases)),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(found)} digits that it never saw, each somewhere on a canvas of {CANVAS}×{CANVAS}")
    print(f"  nearest class mean   {result['baseline_accuracy']:6.1%}")
    print(
        f"  residual network     {result['accuracy']:6.1%}   ({result['parameters']:,} parameters, {result['seconds']:.0f} s)"
    )
    print(
        f"\na held-out {held_out.labels[0]}, read as {found[0]}; at the right, what the stem's convolutions answer to it:"
    )
    print(stem_picture(model, canvases[0]))
    return result


def stem_picture(model: ResNet, canvas: list[float]) -> str:
    """A canvas in characters, and beside it the strongest answer of the first layer's kernels at every place."""
    with no_grad():
        maps = model.stem_norm(model.stem(as_tensor([canvas]))).relu()
    strongest = maps.max(1)[0].tolist()
    ink = [canvas[row * CANVAS : (row + 1) * CANVAS] for row in range(CANVAS)]
    return "\n".join(
        f"  {left}   {right}" for left, right in zip(ascii_image(ink), ascii_image(strongest), strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small residual network on scattered digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    given = parser.parse_args()
    run(steps=QUICK_STEPS if given.quick else STEPS, seed=given.seed)


if __name__ == "__main__":
    main()
