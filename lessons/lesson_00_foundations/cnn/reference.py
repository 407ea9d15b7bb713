"""A convolutional network in pure Python: convolution, pooling, batch norm and residual blocks.

Convolution is written twice: by its definition, and as one matrix product. Then a small residual network (He et al.,
arXiv:1512.03385) learns to classify handwritten digits at random positions of a canvas, in about half a minute:

    python -S -m lessons.lesson_00_foundations.cnn.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from operator import eq, itemgetter
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import Gradients, no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.functional import concatenate, cross_entropy, layer_norm, linear
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.shapes import scatter_add
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor, record_operation
from shared.stdlib.training import shuffled_batches, train

# ── Convolution by its definition ─────────────────────────────────────────────────────────────────────────────────────


def output_size(length: int, size: int, stride: int, padding: int) -> int:
    """Return the number of positions of a window of `size` along a side of `length`. Raises ValueError for none."""
    if length + 2 * padding < size:
        raise ValueError(f"a window of {size} does not fit into {length} + 2 · {padding}; use a smaller window")
    return (length + 2 * padding - size) // stride + 1


def conv2d_direct(images: Tensor, kernel: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve images with a kernel by the definition of convolution.

    images [batch, channels, height, width], kernel [out, channels, size, size] → y [batch, out, rows, columns]:
    y[b, o, r, q] = bias[o] + Σ kernel[o, c, i, j] · x[b, c, r·stride + i - padding, q·stride + j - padding],
    where x is 0 outside of the image. One loop per index is slow: this is the definition, and a test for the rest.
    """
    batch, channels, height, width = images.shape
    out, _, size, _ = kernel.shape
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    x, w = images.data, kernel.data

    def products() -> Iterator[tuple[int, int, int]]:
        """Yield the flat indices (in y, in x, in the kernel) of every product of the sum."""
        for b, o, r, q in product(range(batch), range(out), range(rows), range(columns)):
            y_index = ((b * out + o) * rows + r) * columns + q
            for c, i, j in product(range(channels), range(size), range(size)):
                row, column = r * stride + i - padding, q * stride + j - padding
                if 0 <= row < height and 0 <= column < width:
                    x_index = ((b * channels + c) * height + row) * width + column
                    yield y_index, x_index, ((o * channels + c) * size + i) * size + j

    y = [bias.data[o] for _ in range(batch) for o in range(out) for _ in range(rows * columns)]
    for y_index, x_index, w_index in products():
        y[y_index] += x[x_index] * w[w_index]

    def backward(gradient: list[float]) -> Gradients:
        x_gradient, w_gradient, bias_gradient = [0.0] * len(x), [0.0] * len(w), [0.0] * out
        # exercise 0.16: the gradients of a convolution
        # The derivative of a product x · w with respect to x is w, and with respect to w it is x.
        for y_index, x_index, w_index in products():
            x_gradient[x_index] += gradient[y_index] * w[w_index]
            w_gradient[w_index] += gradient[y_index] * x[x_index]
        for y_index, value in enumerate(gradient):
            bias_gradient[y_index // (rows * columns) % out] += value
        # end exercise
        return x_gradient, w_gradient, bias_gradient

    return record_operation(y, (batch, out, rows, columns), (images, kernel, bias), backward)


# ── Convolution as one matrix product ─────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=32)
def window_index(shape: tuple[int, ...], size: int, stride: int, padding: int) -> tuple[int, ...]:
    """Return the index in the flat image of every value of every window; in the padding, the index past the end."""
    batch, channels, height, width = shape
    outside = math.prod(shape)
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    index = []
    for b, r, q, c in product(range(batch), range(rows), range(columns), range(channels)):
        for i, j in product(range(size), range(size)):
            row, column = r * stride + i - padding, q * stride + j - padding
            inside = 0 <= row < height and 0 <= column < width
            index.append(((b * channels + c) * height + row) * width + column if inside else outside)
    return tuple(index)


def im2col(images: Tensor, size: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Return every window as a row: [batch, rows, columns, channels · size · size].

    A pixel lies in several windows, so it occurs in several rows; its gradient is the sum over these.
    """
    batch, channels, height, width = images.shape
    rows, columns = output_size(height, size, stride, padding), output_size(width, size, stride, padding)
    index = window_index(images.shape, size, stride, padding)
    # The extra index 0, which is dropped again, makes itemgetter return a tuple for a single index too.
    data = list(itemgetter(*index, 0)([*images.data, 0.0]))[:-1]

    def backward(gradient: list[float]) -> Gradients:
        return (scatter_add(gradient, index, len(images.data) + 1)[:-1],)

    return record_operation(data, (batch, rows, columns, channels * size * size), (images,), backward)


def conv2d(images: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve as `conv2d_direct` does, by one matrix product of all windows and all kernels."""
    out, _, size, _ = kernel.shape
    windows = im2col(images, size, stride, padding)
    return linear(windows, kernel.reshape(out, -1), bias).permute(0, 3, 1, 2)


def windows_per_channel(images: Tensor, size: int, stride: int) -> Tensor:
    """Return the windows of each channel separately: [batch, channels, rows, columns, size · size]."""
    batch, channels, height, width = images.shape
    windows = im2col(images.reshape(batch * channels, 1, height, width), size, stride)
    return windows.reshape(batch, channels, *windows.shape[1:])


def max_pool2d(images: Tensor, size: int, stride: int | None = None) -> Tensor:
    """Return the maximum of every window; only that value gets a gradient."""
    return windows_per_channel(images, size, stride or size).max(-1)


def mean_pool2d(images: Tensor, size: int, stride: int | None = None) -> Tensor:
    """Return the mean of every window; the gradient is divided equally among its values."""
    return windows_per_channel(images, size, stride or size).mean(-1)


# ── A residual network (sections 3.3 and 4.2) ─────────────────────────────────────────────────────────────────────────


class Conv2d(Module):
    """Convolve without a bias; weights start with variance 2 / (size² · out) (arXiv:1502.01852, eq. 14)."""

    def __init__(self, channels: int, out: int, random: Random, size: int = 3, stride: int = 1):
        std = math.sqrt(2 / (size * size * out))
        self.weight = normal((out, channels, size, size), std, random, requires_grad=True)
        self.stride, self.padding = stride, size // 2

    def forward(self, images: Tensor) -> Tensor:
        return conv2d(images, self.weight, None, self.stride, self.padding)


class BatchNorm2d(Module):
    """Normalize each channel over the batch and all positions, then apply a learned scale and shift.

    While `training` is true it also updates running means and variances. Otherwise it uses these, so that an image's
    logits do not depend on the rest of the batch (arXiv:1502.03167, algorithms 1 and 2).
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        self.weight = full((channels,), 1.0, requires_grad=True)
        self.bias = full((channels,), 0.0, requires_grad=True)
        self.means, self.variances = [0.0] * channels, [1.0] * channels
        self.momentum, self.eps, self.training = momentum, eps, True

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        # With one row per channel, layer norm's normalization of each row is the one needed here.
        count = batch * height * width
        rows = images.permute(1, 0, 2, 3).reshape(channels, count)
        if self.training:
            self._update_running_statistics(rows)
            rows = layer_norm(rows, full((count,), 1.0), full((count,), 0.0), self.eps)
        else:
            stds = [math.sqrt(variance + self.eps) for variance in self.variances]
            rows = (rows - Tensor(self.means, (channels, 1))) / Tensor(stds, (channels, 1))
        rows = rows * self.weight.reshape(channels, 1) + self.bias.reshape(channels, 1)
        return rows.reshape(channels, batch, height, width).permute(1, 0, 2, 3)

    def _update_running_statistics(self, rows: Tensor) -> None:
        channels, count = rows.shape
        for channel in range(channels):
            row = rows.data[channel * count : (channel + 1) * count]
            mean = sum(row) / count
            variance = math.dist(row, [mean] * count) ** 2 / (count - 1)
            self.means[channel] += self.momentum * (mean - self.means[channel])
            self.variances[channel] += self.momentum * (variance - self.variances[channel])


def shortcut(x: Tensor, out: int, stride: int) -> Tensor:
    """Return x; when the block shrinks and widens, every stride-th pixel and zero channels up to `out` (option A)."""
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    batch, channels, height, width = x.shape
    if out > channels:
        x = concatenate([x, full((batch, out - channels, height, width), 0.0)], axis=1)
    return x


class ResidualBlock(Module):
    """Compute y = relu(x + F(x)) with F two convolutions (eq. 1): the block only has to learn the difference from x."""

    def __init__(self, channels: int, out: int, random: Random, stride: int = 1):
        self.conv1, self.norm1 = Conv2d(channels, out, random, stride=stride), BatchNorm2d(out)
        self.conv2, self.norm2 = Conv2d(out, out, random), BatchNorm2d(out)
        self.out, self.stride = out, stride

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm1(self.conv1(x)).relu()
        branch = self.norm2(self.conv2(branch))
        return (branch + shortcut(x, self.out, self.stride)).relu()


class ResNet(Module):
    """Classify images [batch, channels, height, width]; return logits [batch, classes].

    Each stage after the first halves the sides of the maps and changes their number of channels.
    The mean over all positions of the last maps makes the logits nearly independent of where a digit is.
    """

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...], blocks: int, pool: int, random: Random):
        self.stem, self.stem_norm, self.pool = Conv2d(channels, widths[0], random), BatchNorm2d(widths[0]), pool
        self.blocks = []
        previous_width = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                self.blocks.append(ResidualBlock(previous_width, width, random, stride))
                previous_width = width
        self.head = Linear(previous_width, classes, random)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(images)).relu()
        x = max_pool2d(x, self.pool) if self.pool > 1 else x
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(-1).mean(-1))

    def norms(self) -> list[BatchNorm2d]:
        """Return every batch norm of the network."""
        return [self.stem_norm, *(norm for block in self.blocks for norm in (block.norm1, block.norm2))]


# ── Classifying digits at random positions ────────────────────────────────────────────────────────────────────────────

CANVAS, BATCH = 12, 16
STEPS, QUICK_STEPS, LEARNING_RATE = 330, 20, 2e-2


def shift_randomly(images: list[list[int]], random: Random) -> list[list[float]]:
    """Place each digit at a random position of an empty canvas, with ink scaled to 0…1."""
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


def canvases_to_tensor(canvases: list[list[float]]) -> Tensor:
    """Return canvases as [batch, 1, CANVAS, CANVAS]."""
    return Tensor([value for canvas in canvases for value in canvas], (len(canvases), 1, CANVAS, CANVAS))


def fit(model: ResNet, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the network on digits at new random positions in every batch; return the loss at each step."""
    batches = shuffled_batches(len(training.images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = training.subset(batches[step])
        return cross_entropy(model(canvases_to_tensor(shift_randomly(batch.images, random))), batch.labels)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="ResNet")


def predict(model: ResNet, canvases: list[list[float]]) -> list[int]:
    """Return the digit with the largest logit for each canvas, a hundred canvases at a time."""
    for norm in model.norms():
        norm.training = False
    predictions = []
    with no_grad():
        for start in range(0, len(canvases), 100):
            logits = model(canvases_to_tensor(canvases[start : start + 100])).tolist()
            predictions += [row.index(max(row)) for row in logits]
    return predictions


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = ResNet(1, digits.CLASSES, (6, 12), 1, 2, random)
    losses = fit(model, training, steps, random)
    canvases = shift_randomly(held_out.images, random)
    predictions = predict(model, canvases)
    training_canvases = digits.Digits(shift_randomly(training.images, random), training.labels)

    def accuracy(predictions: list[int]) -> float:
        return sum(map(eq, predictions, held_out.labels)) / len(predictions)

    measured, baseline = accuracy(predictions), accuracy(digits.classify_by_nearest_mean(training_canvases, canvases))
    parameters, seconds = sum(len(tensor.data) for tensor in model.parameters().values()), time.perf_counter() - start
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\naccuracy on {len(predictions)} held-out digits, each at a random position of a {CANVAS}×{CANVAS} canvas")
    print(f"  nearest class mean   {baseline:6.1%}")
    print(f"  residual network     {measured:6.1%}   ({parameters:,} parameters, {seconds:.0f} s)")
    print(f"\na held-out {held_out.labels[0]}, classified as {predictions[0]}; right: the stem's largest activations")
    print(show_stem(model, canvases[0]))
    return {
        "seed": seed,
        "steps": steps,
        "parameters": parameters,
        "accuracy": measured,
        "baseline_accuracy": baseline,
        "seconds": seconds,
        "losses": losses,
    }


def show_stem(model: ResNet, canvas: list[float]) -> str:
    """Return a canvas as text, and beside it the largest activation of the first layer's kernels at every position."""
    with no_grad():
        maps = model.stem_norm(model.stem(canvases_to_tensor([canvas]))).relu()
    largest = maps.max(1)[0].tolist()
    ink = [canvas[row * CANVAS : (row + 1) * CANVAS] for row in range(CANVAS)]
    return "\n".join(f"  {left}   {right}" for left, right in zip(ascii_image(ink), ascii_image(largest), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small residual network on shifted digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the held-out fifth and of every random draw")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
