"""InternVL in pure Python: pixel unshuffle, V2PE, square averaging and the mixer (arXiv:2504.10479, 2412.09616).

A small causal transformer is trained from the start on a mixture of two corpora: text alone, in which digits count up,
and images of handwritten digits, followed by the digits' names. The step δ of visual tokens is drawn anew in each step:

    python -S -m lessons.lesson_10_internvl.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import attention, concatenate, gelu, log_softmax
from shared.stdlib.nn import MLP, Embedding, LayerNorm, Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

STEPS = tuple(2.0**-exponent for exponent in range(9))
"""δ, the step of a visual token: 1, 1/2, …, 1/256."""

# ── Pixel unshuffle (arXiv:2404.16821) ────────────────────────────────────────────────────────────────────────────────


def pixel_unshuffle(grid: Tensor, factor: int) -> Tensor:
    """Move squares of neighbors into the width: [tiles, R, C, W] → [tiles, R/f, C/f, f² W]. Raises ValueError."""
    tiles, rows, columns, width = grid.shape
    if rows % factor or columns % factor:
        raise ValueError(f"a grid of {rows} × {columns} patches does not divide into squares of {factor} × {factor}")
    squares = grid.reshape(tiles, rows // factor, factor, columns // factor, factor, width)
    return squares.permute(0, 1, 3, 2, 4, 5).reshape(tiles, rows // factor, columns // factor, -1)


# ── V2PE (arXiv:2504.10479, section 2.1) ──────────────────────────────────────────────────────────────────────────────


def v2pe_positions(is_visual: Sequence[bool], image_steps: Sequence[float]) -> list[float]:
    """Return the position of each token of a sequence, given the step δ of each image: a run of visual tokens."""
    images, positions, previous = iter(image_steps), [], False
    step = 1.0
    for visual in is_visual:
        if visual and not previous:
            step = next(images)
        moved = step if visual else 1.0
        positions.append(positions[-1] + moved if positions else 0.0)
        previous = visual
    return positions


def rotate(x: Tensor, positions: Sequence[float], base: float = 10_000.0) -> Tensor:
    """Rotate the pairs of every head: x [batch, heads, tokens, head_dim], one position per token, also a fraction.

    Pair i holds the elements a = x[…, i] and b = x[…, i + head_dim/2], and θ = position · base^(−2i / head_dim) is its
    angle. The rotation is (a, b) → (a cos θ − b sin θ, b cos θ + a sin θ). The result has the shape of x.

    `Tensor(data, shape)` makes a constant from a flat list of numbers; axes of size 1 broadcast in products. A tensor
    is cut with slices on each axis, and `concatenate(parts, axis)` joins tensors.
    """
    # exercise 10.10: rotate at fractional positions
    pairs = x.shape[-1] // 2
    angles = [position * base ** (-pair / pairs) for position in positions for pair in range(pairs)]
    shape = (1, 1, len(positions), pairs)
    cos, sin = Tensor(list(map(math.cos, angles)), shape), Tensor(list(map(math.sin, angles)), shape)
    first, second = x[:, :, :, :pairs], x[:, :, :, pairs:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    # end exercise


# ── Square averaging (arXiv:2504.10479, section 2.2) ──────────────────────────────────────────────────────────────────


def token_weights(loss_mask: Sequence[Sequence[bool]], exponent: float = 0.5) -> list[list[float]]:
    """Return the weight 1 / n^exponent of each response token, where n is their number in its sample, one per row."""
    weights = []
    for row in loss_mask:
        weight = sum(row) ** -exponent if any(row) else 0.0
        weights.append([weight if counts else 0.0 for counts in row])
    return weights


def averaged_loss(
    logits: Tensor, targets: Sequence[Sequence[int]], loss_mask: Sequence[Sequence[bool]], exponent: float = 0.5
) -> Tensor:
    """Return the weighted mean cross-entropy: logits [batch, tokens, vocab], a target per token; Σ w · loss / Σ w."""
    vocab = logits.shape[-1]
    weights = [weight for row in token_weights(loss_mask, exponent) for weight in row]
    total = sum(weights)
    chosen = [0.0] * (len(weights) * vocab)
    for index, (weight, target) in enumerate(zip(weights, (t for row in targets for t in row), strict=True)):
        chosen[index * vocab + target] = -weight / total
    return (log_softmax(logits.reshape(-1, vocab)) * Tensor(chosen, (len(weights), vocab))).sum()


# ── The corpus mixer (arXiv:2504.10479, section 2.2) ──────────────────────────────────────────────────────────────────


def document_probabilities(token_fractions: Sequence[float], mean_lengths: Sequence[float]) -> list[float]:
    """Return with which probability each corpus gives the next document, so that it gives its fraction of tokens."""
    weights = [fraction / length for fraction, length in zip(token_fractions, mean_lengths, strict=True)]
    return [weight / sum(weights) for weight in weights]


def mix(lengths: Sequence[Sequence[int]], token_fractions: Sequence[float], seed: int) -> Iterator[tuple[int, int]]:
    """Yield (corpus, document) endlessly; each corpus is shuffled, and again after all its documents were drawn.

    lengths  of the documents of each corpus, in tokens
    """
    random = Random(seed)
    probabilities = document_probabilities(token_fractions, [sum(each) / len(each) for each in lengths])
    left: list[list[int]] = [[] for _ in lengths]
    while True:
        (corpus,) = random.choices(range(len(lengths)), probabilities)
        if not left[corpus]:
            left[corpus] = list(range(len(lengths[corpus])))
            random.shuffle(left[corpus])
        yield corpus, left[corpus].pop()


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sizes(NamedTuple):
    """Sizes of a model; an image has (side / patch / factor)² visual tokens."""

    side: int = 8
    patch: int = 2
    factor: int = 2
    vision_width: int = 6
    width: int = 24
    depth: int = 1
    heads: int = 2
    mlp_dim: int = 48
    vocab: int = 14
    base: float = 30.0

    @property
    def image_tokens(self) -> int:
        """The number of visual tokens of an image."""
        return (self.side // self.patch // self.factor) ** 2


class Projector(Module):
    """Pixel unshuffle, LayerNorm and a two-layer MLP: [tiles, R, C, W] → [tiles, R/f · C/f, width]."""

    def __init__(self, sizes: Sizes, random: Random):
        width = sizes.vision_width * sizes.factor**2
        self.norm = LayerNorm(width, 1e-5)
        self.first, self.second = Linear(width, sizes.width, random), Linear(sizes.width, sizes.width, random)
        self.factor = sizes.factor

    def forward(self, grid: Tensor) -> Tensor:
        squares = pixel_unshuffle(grid, self.factor)
        tokens = squares.reshape(squares.shape[0], -1, squares.shape[-1])
        return self.second(gelu(self.first(self.norm(tokens))))


class Attention(Module):
    """Causal multi-head attention with rotary positions: x [batch, tokens, width] → the same shape."""

    def __init__(self, sizes: Sizes, random: Random):
        width = sizes.width
        self.query, self.key, self.value = (Linear(width, width, random) for _ in range(3))
        self.output = Linear(width, width, random, bias=False)
        self.sizes = sizes

    def forward(self, x: Tensor, positions: Sequence[float], mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = (batch, tokens, self.sizes.heads, width // self.sizes.heads)
        query, key, value = (
            layer(x).reshape(*heads).permute(0, 2, 1, 3) for layer in (self.query, self.key, self.value)
        )
        query, key = (rotate(each, positions, self.sizes.base) for each in (query, key))
        return self.output(attention(query, key, value, mask).permute(0, 2, 1, 3).reshape(batch, tokens, width))


class Block(Module):
    """Attention, then an MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, sizes: Sizes, random: Random):
        self.attention_norm, self.mlp_norm = LayerNorm(sizes.width), LayerNorm(sizes.width)
        self.attention, self.mlp = Attention(sizes, random), MLP(sizes.width, sizes.mlp_dim, random)

    def forward(self, x: Tensor, positions: Sequence[float], mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), positions, mask)
        return x + self.mlp(self.mlp_norm(x))


class InternVL(Module):
    """Images [batch][images] of side² pixels, each before the text [batch][text], → logits at every text token."""

    def __init__(self, sizes: Sizes, random: Random):
        self.patch_embedding = Linear(sizes.patch**2, sizes.vision_width, random)
        self.projector = Projector(sizes, random)
        self.embedding = Embedding(sizes.vocab, sizes.width, random)
        self.blocks = [Block(sizes, random) for _ in range(sizes.depth)]
        self.norm = LayerNorm(sizes.width)
        self.output = Linear(sizes.width, sizes.vocab, random, bias=False)
        self.sizes = sizes

    def forward(
        self, images: Sequence[Sequence[Sequence[float]]], text: Sequence[Sequence[int]], step: float = 1.0
    ) -> Tensor:
        """Return logits [batch, text, vocab]; all rows have equally many images and equally much text."""
        batch, count = len(text), len(images[0])
        x = self.embedding([token for row in text for token in row]).reshape(batch, -1, self.sizes.width)
        if count:
            visual = self.visual_tokens([pixels for row in images for pixels in row])
            x = concatenate([visual.reshape(batch, -1, self.sizes.width), x], axis=1)
        is_visual = [True] * (count * self.sizes.image_tokens) + [False] * len(text[0])
        positions = v2pe_positions(is_visual, [step] if count else [])
        mask = causal_mask(len(positions))
        for block in self.blocks:
            x = block(x, positions, mask)
        return self.output(self.norm(x[:, len(positions) - len(text[0]) :]))

    def visual_tokens(self, images: Sequence[Sequence[float]]) -> Tensor:
        """Return the visual tokens of images [images, tokens, width]."""
        patch, rows = self.sizes.patch, self.sizes.side // self.sizes.patch
        pixels = Tensor([p for image in images for p in image], (len(images), rows, patch, rows, patch))
        return self.projector(self.patch_embedding(pixels.permute(0, 1, 3, 2, 4).reshape(len(images), rows, rows, -1)))


def causal_mask(tokens: int) -> Tensor:
    """Return the mask [tokens, tokens]: 0 for earlier tokens and the token itself, −∞ for later ones."""
    return Tensor(
        [0.0 if key <= query else -math.inf for query in range(tokens) for key in range(tokens)], (tokens,) * 2
    )


# ── The corpora, and training ─────────────────────────────────────────────────────────────────────────────────────────

IMAGES = 2
READ, COUNT = digits.CLASSES, digits.CLASSES + 1  # token ids of the two questions follow those of the digits
TEXT_LENGTH = 6
TOKEN_FRACTIONS = (1.0, 3.0)  # of text alone and of images with text, as in the paper
TRAINED_STEPS = (1.0, 1 / 2, 1 / 4)
BATCH, TRAINING_STEPS, QUICK_STEPS = 16, 330, 12
LEARNING_RATE = 1e-2
HELD_OUT = 150


class Example(NamedTuple):
    """Images as flat pixels, and the text after them: a question and its answer."""

    images: list[list[float]]
    text: list[int]


def counting_example(random: Random) -> Example:
    """Return text alone: digits that count up from a random one."""
    start = random.randrange(digits.CLASSES)
    return Example([], [COUNT, *((start + place) % digits.CLASSES for place in range(TEXT_LENGTH))])


def reading_example(data: digits.Digits, random: Random, count: int = IMAGES) -> Example:
    """Return images of digits and their names in order."""
    chosen = random.sample(range(len(data.images)), count)
    images = [[pixel / digits.MAX_PIXEL for pixel in data.images[index]] for index in chosen]
    return Example(images, [READ, *(data.labels[index] for index in chosen)])


def predictions_of(model: InternVL, examples: Sequence[Example], step: float) -> list[list[int]]:
    """Return the predicted token after each token of the texts but the last."""
    logits = model([each.images for each in examples], [each.text[:-1] for each in examples], step)
    return [[row.index(max(row)) for row in each] for each in logits.tolist()]


def fit(model: InternVL, training: digits.Digits, steps: int, random: Random) -> tuple[list[float], list[int]]:
    """Train on the mixture, a batch of one corpus per step; return the losses and the tokens of each corpus."""
    text_tokens = 1 + TEXT_LENGTH
    image_tokens = 1 + IMAGES + IMAGES * model.sizes.image_tokens
    corpora = mix([[text_tokens * BATCH], [image_tokens * BATCH]], TOKEN_FRACTIONS, random.randrange(10**6))
    tokens = [0, 0]

    def loss_at(step: int) -> Tensor:
        corpus, _ = next(corpora)
        tokens[corpus] += (text_tokens, image_tokens)[corpus] * BATCH
        examples = [reading_example(training, random) if corpus else counting_example(random) for _ in range(BATCH)]
        texts = [each.text for each in examples]
        # The first digit that is counted from is random, and not part of the loss.
        mask = [[index + corpus > 0 for index in range(len(text) - 1)] for text in texts]
        logits = model([each.images for each in examples], [text[:-1] for text in texts], random.choice(TRAINED_STEPS))
        return averaged_loss(logits, [text[1:] for text in texts], mask)

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="InternVL"), tokens


def accuracy(model: InternVL, examples: Sequence[Example], step: float, first: int = 0) -> float:
    """Return the fraction of correct predictions, from the `first` predicted token on."""
    with no_grad():
        predictions = predictions_of(model, examples, step)
    targets = [example.text[1:][first:] for example in examples]
    pairs = zip((p for row in predictions for p in row[first:]), (t for row in targets for t in row), strict=True)
    return sum(prediction == target for prediction, target in pairs) / (len(targets) * len(targets[0]))


def run(*, steps: int = TRAINING_STEPS, held_out_examples: int = HELD_OUT, seed: int = 0) -> dict:
    """Train on four fifths of the digits; print and return measurements on the other fifth."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = InternVL(Sizes(), random)
    losses, tokens = fit(model, training, steps, random)
    examples = [reading_example(held_out, random) for _ in range(held_out_examples)]
    texts = [counting_example(random) for _ in range(20)]
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "token_fraction_of_text": tokens[0] / sum(tokens),
        "reading": {step: accuracy(model, examples, step) for step in TRAINED_STEPS},
        "counting": accuracy(model, texts, 1.0, first=1),
        "losses": losses,
        "seconds": time.perf_counter() - start,
    }
    report(result)
    return result


def report(result: dict) -> None:
    """Print the losses, the accuracies and some positions."""
    losses = result["losses"]
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"{result['token_fraction_of_text']:.0%} of the tokens are text alone; the mixture has 25%")
    print("positions of an image of 4 visual tokens and 3 of text:")
    for step in (1.0, 1 / 4):
        print(f"  δ = {step:<5}", v2pe_positions([True] * 4 + [False] * 3, [step]))
    for step, fraction in result["reading"].items():
        print(f"digits read from {IMAGES} held-out images with δ = {step:<5} {fraction:.0%}; chance is 10%")
    print(f"next digit when counting: {result['counting']:.0%}")
    print(f"{result['parameters']:,} parameters, {result['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small InternVL on text and images in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of every random draw (default 0)")
    options = parser.parse_args()
    quick = {"steps": QUICK_STEPS, "held_out_examples": 20} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
