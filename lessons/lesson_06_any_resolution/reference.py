"""NaViT in pure Python: images of any aspect ratio in packed rows (Dehghani et al., arXiv:2307.06304).

Strips of one or two handwritten digits, tall or wide and of any resolution, are resized to a token budget without
changing their aspect ratio (SigLIP 2, arXiv:2502.14786, section 2.4.2) and cut into patches. Several images share a row
of tokens. A small Vision Transformer learns to read the first digit of each strip:

    python -S -m lessons.lesson_06_any_resolution.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal, tensor
from shared.stdlib.functional import cross_entropy, embedding
from shared.stdlib.nn import MLP, LayerNorm, Linear, Module, MultiHeadAttention
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── From an image to patches ──────────────────────────────────────────────────────────────────────────────────────────


def budget_grid(height: int, width: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """Return the rows and columns of patches at the largest scale that gives at most `max_patches` patches.

    Each side is rounded up to whole patches. Raises ValueError for an image without pixels and a budget below 1.
    """
    if min(height, width, patch_size, max_patches) < 1:
        raise ValueError(
            f"an image of {height}×{width} and a budget of {max_patches} patches; expected at least 1 each"
        )

    def grid(scale: float) -> tuple[int, int]:
        return math.ceil(height * scale / patch_size), math.ceil(width * scale / patch_size)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        scale = (low + high) / 2
        if math.prod(grid(scale)) <= max_patches:
            low = scale
        else:
            high = scale
    return grid(low)


def resize_matrix(old: int, new: int) -> Tensor:
    """Return the weights [new, old] of antialiased linear interpolation: triangles as wide as a new pixel, or wider."""
    scale = old / new
    rows = [[max(1 - abs(j + 0.5 - (i + 0.5) * scale) / max(scale, 1), 0) for j in range(old)] for i in range(new)]
    return tensor([[weight / sum(row) for weight in row] for row in rows])


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image [old_height, old_width] to [height, width]: rows and columns separately."""
    return resize_matrix(image.shape[0], height) @ image @ resize_matrix(image.shape[1], width).transpose()


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cut a gray image [height, width] into patches [rows · columns, patch_size²] in row-major order."""
    rows, columns = image.shape[0] // patch_size, image.shape[1] // patch_size
    blocks = image.reshape(rows, patch_size, columns, patch_size).permute(0, 2, 1, 3)
    return blocks.reshape(rows * columns, patch_size * patch_size)


# ── Packing (section 2.3) ─────────────────────────────────────────────────────────────────────────────────────────────


def first_fit_decreasing(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Assign images to rows, longest first, each to the first row with enough space; return each row's images."""
    rows: list[list[int]] = []
    for image in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fits = (row for row in rows if sum(lengths[other] for other in row) + lengths[image] <= row_length)
        row = next(fits, None)
        if row is None:
            rows.append(row := [])
        row.append(image)
    return rows


class Rows(NamedTuple):
    """A packed batch: several images per row, padded at the end.

    patches      [rows, tokens, patch_pixels]
    coordinates  row and column of each token's patch, all rows one after another
    image_index  index of each token's image per row; −1 for padding
    """

    patches: Tensor
    coordinates: list[tuple[int, int]]
    image_index: list[list[int]]


def pack(images: Sequence[Tensor], patch_size: int, row_length: int) -> Rows:
    """Cut images [height, width] into patches and pack them into rows of `row_length` tokens.

    Raises ValueError for an image that is longer than a row.
    """
    grids = [(image.shape[0] // patch_size, image.shape[1] // patch_size) for image in images]
    lengths = [rows * columns for rows, columns in grids]
    if max(lengths) > row_length:
        raise ValueError(f"an image has {max(lengths)} patches, and a row holds {row_length}; use longer rows")
    pixels: list[float] = []
    coordinates: list[tuple[int, int]] = []
    image_rows = []
    for members in first_fit_decreasing(lengths, row_length):
        for image in members:
            pixels += patchify(images[image], patch_size).data
            coordinates += [divmod(index, grids[image][1]) for index in range(lengths[image])]
        tokens = [image for image in members for _ in range(lengths[image])]
        padding = row_length - len(tokens)
        image_rows.append(tokens + [-1] * padding)
        coordinates += [(0, 0)] * padding
        pixels += [0.0] * (padding * patch_size**2)
    return Rows(Tensor(pixels, (len(image_rows), row_length, patch_size**2)), coordinates, image_rows)


# ── What changes in the Vision Transformer (section 2.1) ──────────────────────────────────────────────────────────────


def block_diagonal_mask(image_index: Sequence[Sequence[int]]) -> Tensor:
    """Return the mask [rows, 1, tokens, tokens]: 0 between tokens of one image, −∞ between those of different images.

    Padding tokens form a group of their own: a row without any visible key would have no softmax. The result is
    `Tensor(values, shape)` with a flat list of values in row-major order.
    """
    # exercise 6.1: the block-diagonal mask
    tokens = len(image_index[0])
    values = [0.0 if query == key else -math.inf for row in image_index for query in row for key in row]
    return Tensor(values, (len(image_index), 1, tokens, tokens))
    # end exercise


def mean_per_image(x: Tensor, image_index: Sequence[Sequence[int]], count: int) -> Tensor:
    """Return the mean of each image's tokens: x [rows, tokens, width] → [count, width]; padding belongs to no image.

    `Tensor(values, shape)` makes a tensor from a flat list in row-major order. The result passes gradients on to x.
    """
    # exercise 6.2: the mean per image, pure Python
    flat = [image for row in image_index for image in row]
    sizes = [flat.count(image) for image in range(count)]
    # One row of averaging weights per image.
    weights = [float(image == other) / sizes[image] for image in range(count) for other in flat]
    return Tensor(weights, (count, len(flat))) @ x.reshape(len(flat), x.shape[-1])
    # end exercise


class FactorizedPositions(Module):
    """A learned vector per row plus one per column: 2 · size vectors for a grid of up to size × size patches."""

    def __init__(self, size: int, width: int, random: Random):
        self.rows = normal((size, width), 0.2, random, requires_grad=True)
        self.columns = normal((size, width), 0.2, random, requires_grad=True)

    def forward(self, coordinates: Sequence[tuple[int, int]]) -> Tensor:
        rows, columns = zip(*coordinates, strict=True)
        return embedding(rows, self.rows) + embedding(columns, self.columns)


class Block(Module):
    """Attention within each image, then an MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, width: int, heads: int, mlp_dim: int, random: Random):
        self.attention_norm, self.mlp_norm = LayerNorm(width), LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, random)
        self.mlp = MLP(width, mlp_dim, random)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.mlp(self.mlp_norm(x))


class NaViT(Module):
    """Packed rows of patches → logits [images, classes]."""

    def __init__(self, sizes: "Sizes", random: Random):
        width = sizes.width
        self.patch_embedding = Linear(sizes.patch_size**2, width, random)
        self.positions = FactorizedPositions(sizes.grid_size, width, random)
        self.blocks = [Block(width, sizes.heads, sizes.mlp_dim, random) for _ in range(sizes.depth)]
        self.norm = LayerNorm(width)
        self.head = Linear(width, sizes.classes, random)

    def forward(self, batch: Rows, count: int) -> Tensor:
        x = self.patch_embedding(batch.patches)
        x = x + self.positions(batch.coordinates).reshape(*x.shape)
        mask = block_diagonal_mask(batch.image_index)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(mean_per_image(self.norm(x), batch.image_index, count))


class Sizes(NamedTuple):
    """Sizes of a model; `grid_size` is the number of learned vectors per axis."""

    patch_size: int = 4
    width: int = 24
    depth: int = 2
    heads: int = 2
    mlp_dim: int = 48
    grid_size: int = 6
    classes: int = digits.CLASSES


# ── Strips of digits ──────────────────────────────────────────────────────────────────────────────────────────────────

BUDGET, ROW_LENGTH = 8, 24
LONGEST, LARGEST_SCALE = 2, 2.0


class Strip(NamedTuple):
    """An image of some digits beside or below each other; its label is the first of them."""

    image: Tensor
    label: int


def random_strip(data: digits.Digits, random: Random) -> Strip:
    """Join one or two random digits in a random direction, at a random resolution, and resize them to the budget."""
    chosen = data.subset(random.sample(range(len(data.images)), random.randint(1, LONGEST)))
    side = digits.SIDE
    pixels = [pixel / digits.MAX_PIXEL for image in chosen.images for pixel in image]
    strip = Tensor(pixels, (len(chosen.images) * side, side))
    if random.random() < 0.5:
        strip = strip.reshape(-1, side, side).permute(1, 0, 2).reshape(side, -1)
    scale = random.uniform(1.0, LARGEST_SCALE)
    height, width = (round(scale * length) for length in strip.shape)
    patch_size = Sizes().patch_size
    rows, columns = budget_grid(height, width, patch_size, BUDGET)
    enlarged = resize(strip, height, width)
    return Strip(resize(enlarged, rows * patch_size, columns * patch_size), chosen.labels[0])


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BATCH = 12
STEPS, QUICK_STEPS = 320, 25
LEARNING_RATE = 8e-3
HELD_OUT = 200


def logits_of(model: NaViT, images: Sequence[Tensor], row_length: int = ROW_LENGTH) -> Tensor:
    """Pack images and return their logits [images, classes]."""
    return model(pack(images, Sizes().patch_size, row_length), len(images))


def fit(model: NaViT, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the model on new random strips in each step and return the losses."""

    def loss_at(step: int) -> Tensor:
        strips = [random_strip(training, random) for _ in range(BATCH)]
        return cross_entropy(logits_of(model, [strip.image for strip in strips]), [strip.label for strip in strips])

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="NaViT")


def nearest_mean_of_squares(training: digits.Digits, strips: Sequence[Strip]) -> list[int]:
    """Return a baseline's predictions: strips are squeezed into squares and compared with each digit's mean image."""
    squares = [resize(strip.image, digits.SIDE, digits.SIDE) * float(digits.MAX_PIXEL) for strip in strips]
    return digits.classify_by_nearest_mean(training, [[round(value) for value in square.data] for square in squares])


def run(*, steps: int = STEPS, held_out_strips: int = HELD_OUT, seed: int = 0) -> dict:
    """Train on four fifths of the digits; print and return measurements on strips of the other fifth."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = NaViT(Sizes(), random)
    losses = fit(model, training, steps, random)
    strips = [random_strip(held_out, random) for _ in range(held_out_strips)]
    with no_grad():
        packed = logits_of(model, [strip.image for strip in strips])
        single = [logits_of(model, [strip.image]) for strip in strips[:20]]
    predictions = [row.index(max(row)) for row in packed.tolist()]
    differences = [
        abs(x - y) for index, one in enumerate(single) for x, y in zip(one.data, packed[index].data, strict=True)
    ]
    lengths = [math.prod(strip.image.shape) // Sizes().patch_size ** 2 for strip in strips]
    rows = len(first_fit_decreasing(lengths, ROW_LENGTH))
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "accuracy": accuracy(predictions, strips),
        "baseline_accuracy": accuracy(nearest_mean_of_squares(training, strips), strips),
        "largest_difference": max(differences),
        "packed": sum(lengths) / (rows * ROW_LENGTH),
        "padded": sum(lengths) / (len(lengths) * BUDGET),
        "losses": losses,
        "seconds": time.perf_counter() - start,
    }
    report(result, strips, predictions)
    return result


def shape_of(strip: Strip) -> str:
    """Return "square", "tall" or "wide"."""
    height, width = strip.image.shape
    return "square" if height == width else "tall" if height > width else "wide"


def accuracy(predictions: Sequence[int], strips: Sequence[Strip]) -> dict[str, float]:
    """Return the fraction of correct predictions per shape of strip, and over all."""
    hits = [(shape_of(strip), prediction == strip.label) for prediction, strip in zip(predictions, strips, strict=True)]
    groups = {name: [hit for shape, hit in hits if shape == name] for name in ("square", "tall", "wide")}
    return {name: sum(group) / max(len(group), 1) for name, group in groups.items()} | {
        "all": sum(hit for _, hit in hits) / len(hits)
    }


def report(result: dict, strips: Sequence[Strip], predictions: Sequence[int]) -> None:
    """Print the losses, the accuracies and two strips."""
    losses = result["losses"]
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nfirst digit of {len(strips)} held-out strips" + "".join(f"{name:>9}" for name in result["accuracy"]))
    for name, key in (("nearest mean, square", "baseline_accuracy"), ("NaViT, packed", "accuracy")):
        print(f"  {name:30}" + "".join(f"{value:9.0%}" for value in result[key].values()))
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s")
    print(f"\npacked − one by one, largest difference of the logits: {result['largest_difference']:.1e}")
    print(f"tokens that are patches: {result['packed']:.1%} in packed rows, {result['padded']:.1%} in padded ones")
    for shape in ("tall", "wide"):
        index = next((index for index, strip in enumerate(strips) if shape_of(strip) == shape), None)
        if index is not None:
            print(f"\na {shape} strip that starts with {strips[index].label}, predicted {predictions[index]}")
            print("\n".join("  " + line for line in ascii_image(strips[index].image.tolist())))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train NaViT on strips of digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of every random draw (default 0)")
    options = parser.parse_args()
    quick = {"steps": QUICK_STEPS, "held_out_strips": 40} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
