"""Image tokens in pure Python: a VQ-VAE and one transformer for labels and codes (arXiv:1711.00937, 2405.09818).

A codebook is learned on handwritten digits, so that a digit of 8 × 8 pixels becomes 16 codes. Labels and codes are
tokens of one vocabulary. A causal transformer is trained on rows of a label and its digit's codes, and draws digits:

    python -S -m lessons.lesson_11_chameleon.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from operator import add
from random import Random
from statistics import fmean

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import normal
from shared.stdlib.functional import attention, cross_entropy, gelu
from shared.stdlib.nn import MLP, Embedding, LayerNorm, Linear, Module, MultiHeadAttention
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.shapes import rows_of
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor, record_operation
from shared.stdlib.training import shuffled_batches, train

Row = Sequence[float]

# ── Vector quantization (arXiv:1711.00937) ────────────────────────────────────────────────────────────────────────────


def nearest_codes(vectors: Sequence[Row], codebook: Sequence[Row]) -> list[int]:
    """Return for each vector the index of the codebook's entry at the smallest distance (eq. 1)."""
    codes = []
    for vector in vectors:
        distances = list(map(math.dist, repeat(vector), codebook))
        codes.append(distances.index(min(distances)))
    return codes


def straight_through(vectors: Tensor, quantized: Sequence[Row]) -> Tensor:
    """Return the quantized values, with the gradient passed on to the vectors unchanged (section 3.2)."""
    values = [value for row in quantized for value in row]
    return record_operation(values, vectors.shape, (vectors,), lambda gradient: (gradient,))


def commitment_loss(vectors: Tensor, quantized: Sequence[Row]) -> Tensor:
    """Return mean (z − sg[e])²; the entries e are constants, as they learn from moving averages (eq. 3)."""
    difference = vectors - Tensor([value for row in quantized for value in row], vectors.shape)
    return (difference * difference).mean()


class Codebook:
    """Entries that are moving averages of the vectors that they were nearest to; dead ones restart (appendix A.1)."""

    def __init__(self, size: int, width: int, decay: float = 0.9, restart: float = 0.1):
        self.counts, self.sums = [0.0] * size, [(0.0,) * width] * size
        self.entries: list[Row] = [(0.0,) * width] * size
        self.decay, self.restart = decay, restart

    def restart_dead_codes(self, vectors: Sequence[Row], random: Random) -> None:
        """Restart each entry that is used `restart` times as often as the mean, or less, at a random vector."""
        mean_count = len(vectors) / len(self.entries)
        for code, count in enumerate(self.counts):
            if count < self.restart * mean_count:
                self.entries[code] = random.choice(vectors)
                self.counts[code] = mean_count
                self.sums[code] = tuple(mean_count * value for value in self.entries[code])

    def update(self, vectors: Sequence[Row], codes: Sequence[int]) -> None:
        """Update counts, sums and entries by a batch: new = decay · old + (1 − decay) · batch, entry = sum / count."""
        decay, assigned = self.decay, Counter(codes)
        totals: dict[int, Row] = {}
        for vector, code in zip(vectors, codes, strict=True):
            totals[code] = tuple(map(add, totals[code], vector)) if code in totals else vector
        for code, (count, total) in enumerate(zip(self.counts, self.sums, strict=True)):
            batch = totals.get(code, (0.0,) * len(total))
            self.counts[code] = decay * count + (1 - decay) * assigned[code]
            self.sums[code] = tuple(decay * old + (1 - decay) * new for old, new in zip(total, batch, strict=True))
            self.entries[code] = tuple(value / self.counts[code] for value in self.sums[code])


def perplexity(codes: Sequence[int]) -> float:
    """Return exp(−Σ p log p) of the codes' frequencies p: the effective number of codes."""
    frequencies = [count / len(codes) for count in Counter(codes).values()]
    return math.exp(-sum(p * math.log(p) for p in frequencies))


# ── The tokenizer ─────────────────────────────────────────────────────────────────────────────────────────────────────

SIDE, PATCH = digits.SIDE, 2
GRID = SIDE // PATCH
CODES_PER_IMAGE = GRID**2


def patches_of(image: Sequence[float]) -> list[Row]:
    """Cut a digit of 64 pixels into 16 patches of 2 × 2, row by row."""
    corners = [(row * SIDE + column) * PATCH for row in range(GRID) for column in range(GRID)]
    return [(*image[corner : corner + PATCH], *image[corner + SIDE : corner + SIDE + PATCH]) for corner in corners]


def image_of(patches: Sequence[Row]) -> list[float]:
    """Put 16 patches together again; the inverse of `patches_of`."""
    rows = [patches[row * GRID : (row + 1) * GRID] for row in range(GRID)]
    return [value for row in rows for line in range(PATCH) for patch in row for value in patch[PATCH * line :][:PATCH]]


class Tokenizer(Module):
    """A VQ-VAE for patches [patches, 4] of pixels from 0 to 1: a linear encoder, a codebook, a two-layer decoder."""

    def __init__(self, codebook_size: int, width: int, mlp_dim: int, random: Random):
        self.encoder = Linear(PATCH**2, width, random)
        self.decoder = [Linear(width, mlp_dim, random), Linear(mlp_dim, PATCH**2, random)]
        self.codebook, self.width = Codebook(codebook_size, width), width

    def pixels(self, vectors: Tensor) -> Tensor:
        """Return the decoder's patches [patches, 4] of vectors [patches, width]."""
        return self.decoder[1](gelu(self.decoder[0](vectors)))

    def loss(self, images: Sequence[Sequence[int]], random: Random, commitment: float = 0.25) -> Tensor:
        """Return mean squared error + β · commitment loss (eq. 3), and update the codebook."""
        patches = patches_to_tensor(images)
        vectors = self.encoder(patches)
        rows = rows_of(vectors.data, self.width)
        self.codebook.restart_dead_codes(rows, random)
        codes = nearest_codes(rows, self.codebook.entries)
        quantized = [self.codebook.entries[code] for code in codes]
        difference = self.pixels(straight_through(vectors, quantized)) - patches
        self.codebook.update(rows, codes)
        return (difference * difference).mean() + commitment_loss(vectors, quantized) * commitment

    def encode(self, images: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return 16 codes per digit of 64 integers."""
        with no_grad():
            rows = rows_of(self.encoder(patches_to_tensor(images)).data, self.width)
        codes = nearest_codes(rows, self.codebook.entries)
        return [codes[start : start + CODES_PER_IMAGE] for start in range(0, len(codes), CODES_PER_IMAGE)]

    def decode(self, codes: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return a digit of 64 numbers from 0 to 16 per 16 codes. Raises ValueError for codes out of range."""
        flat = [code for row in codes for code in row]
        if flat and not 0 <= min(flat) <= max(flat) < len(self.codebook.entries):
            raise ValueError(f"codes are {min(flat)} to {max(flat)}; expected 0 to {len(self.codebook.entries) - 1}")
        entries = [value for code in flat for value in self.codebook.entries[code]]
        with no_grad():
            pixels = self.pixels(Tensor(entries, (len(flat), self.width))).data
        patches = rows_of([min(max(pixel, 0.0), 1.0) * digits.MAX_PIXEL for pixel in pixels], PATCH**2)
        return [image_of(patches[start : start + CODES_PER_IMAGE]) for start in range(0, len(flat), CODES_PER_IMAGE)]


def patches_to_tensor(images: Sequence[Sequence[int]]) -> Tensor:
    """Return the patches of digits as [16 · images, 4], with pixels from 0 to 1."""
    values = [pixel / digits.MAX_PIXEL for image in images for patch in patches_of(image) for pixel in patch]
    return Tensor(values, (len(images) * CODES_PER_IMAGE, PATCH**2))


# ── One transformer for labels and codes (arXiv:2405.09818) ───────────────────────────────────────────────────────────


class Attention(MultiHeadAttention):
    """Causal attention with QK-norm, a LayerNorm over each head of queries and keys (section 2.3)."""

    def __init__(self, width: int, heads: int, random: Random):
        super().__init__(width, heads, random, bias=False)
        self.query_norm, self.key_norm = LayerNorm(self.head_dim), LayerNorm(self.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        mask = [0.0 if j <= i else -math.inf for i in range(tokens) for j in range(tokens)]
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        query, key = self.query_norm(query), self.key_norm(key)
        return self.output(self._merge(attention(query, key, value, Tensor(mask, (tokens, tokens)))))


class Block(Module):
    """Attention, then an MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, width: int, heads: int, random: Random):
        self.attention_norm, self.mlp_norm = LayerNorm(width), LayerNorm(width)
        self.attention, self.mlp = Attention(width, heads, random), MLP(width, 2 * width, random)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class EarlyFusion(Module):
    """Token ids [batch][tokens], codes and then the ten labels → logits [batch · tokens, vocab] of the next token."""

    def __init__(self, codebook_size: int, width: int, heads: int, random: Random):
        self.codebook_size, self.vocab = codebook_size, codebook_size + digits.CLASSES
        self.embedding = Embedding(self.vocab, width, random)
        self.positions = normal((CODES_PER_IMAGE, width), 0.1, random, requires_grad=True)
        self.blocks = [Block(width, heads, random)]
        self.norm, self.output = LayerNorm(width), Linear(width, self.vocab, random, bias=False)

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        tokens = len(rows[0])
        x = self.embedding([token for row in rows for token in row]).reshape(len(rows), tokens, -1)
        x = x + self.positions[:tokens]
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x)).reshape(len(rows) * tokens, self.vocab)


def rows_of_tokens(data: digits.Digits, codes: Sequence[Sequence[int]], codebook_size: int) -> list[list[int]]:
    """Return a row of 17 token ids per digit: its label, then its codes."""
    return [[codebook_size + label, *row] for label, row in zip(data.labels, codes, strict=True)]


def next_token_loss(model: EarlyFusion, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean cross-entropy of the codes after a label, in nats."""
    return cross_entropy(model([row[:-1] for row in rows]), [token for row in rows for token in row[1:]])


def draw(model: EarlyFusion, labels: Sequence[int], random: Random, temperature: float) -> list[list[int]]:
    """Sample 16 codes for each label, one after another; the logits of labels are left out."""
    size = model.codebook_size
    rows = [[size + label] for label in labels]
    for _ in range(CODES_PER_IMAGE):
        with no_grad():
            logits = rows_of(model(rows).data, model.vocab)[len(rows[0]) - 1 :: len(rows[0])]
        for row, last in zip(rows, logits, strict=True):
            row += random.choices(range(size), [math.exp((logit - max(last)) / temperature) for logit in last[:size]])
    return [row[1:] for row in rows]


# ── Training and measuring ────────────────────────────────────────────────────────────────────────────────────────────

CODEBOOK_SIZE, CODE_WIDTH, MLP_DIM = 32, 4, 16
WIDTH, HEADS = 24, 2
TOKENIZER_STEPS, STEPS, QUICK_STEPS = 150, 800, 10
IMAGES_PER_STEP, BATCH, LEARNING_RATE = 32, 4, 1e-2
DRAWINGS, TEMPERATURE = 10, 0.5


def fit(module: Module, loss_of: Callable, items: Sequence, batch: int, steps: int, random: Random) -> list[float]:
    """Train a module by `loss_of` batches of items; return the loss at each step."""
    batches = shuffled_batches(len(items), batch, steps, random)
    optimizer = AdamW(module.parameters().values(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    return train(
        module,
        lambda step: loss_of([items[index] for index in batches[step]]),
        optimizer,
        steps,
        schedule=partial(warmup_cosine, steps=steps, warmup_steps=steps // 10),
        clip_norm=1.0,
        label=type(module).__name__,
    )


def table_loss(training: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], codebook_size: int) -> float:
    """Return the mean cross-entropy of codes under their frequencies, plus 1, per label and position, in nats."""
    counts = Counter((row[0], place, code) for row in training for place, code in enumerate(row[1:]))
    totals = Counter(row[0] for row in training)
    return -fmean(
        math.log((counts[row[0], place, code] + 1) / (totals[row[0]] + codebook_size))
        for row in rows
        for place, code in enumerate(row[1:])
    )


def accuracy(reference: digits.Digits, images: list, labels: Sequence[int]) -> float:
    """Return which fraction of images is nearest to the mean of the `reference` digits of its label."""
    predictions = digits.classify_by_nearest_mean(reference, images)
    return fmean(prediction == label for prediction, label in zip(predictions, labels, strict=True))


def unexplained_variance(images: list, reconstructions: list) -> float:
    """Return the squared error of the reconstructions, relative to the variance of each pixel over the images."""
    means = [fmean(column) for column in zip(*images, strict=True)]
    error = sum(math.dist(image, other) ** 2 for image, other in zip(images, reconstructions, strict=True))
    return error / sum(math.dist(image, means) ** 2 for image in images)


def run(*, tokenizer_steps: int = TOKENIZER_STEPS, steps: int = STEPS, drawings: int = DRAWINGS, seed: int = 0) -> dict:
    """Train on four fifths of the digits; print and return measurements on the other fifth, and draw each digit."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    tokenizer = Tokenizer(CODEBOOK_SIZE, CODE_WIDTH, MLP_DIM, random)
    loss_of = partial(tokenizer.loss, random=random)
    tokenizer_losses = fit(tokenizer, loss_of, training.images, IMAGES_PER_STEP, tokenizer_steps, random)
    codes = tokenizer.encode(held_out.images)
    reconstructions = tokenizer.decode(codes)

    model = EarlyFusion(CODEBOOK_SIZE, WIDTH, HEADS, random)
    rows = rows_of_tokens(training, tokenizer.encode(training.images), CODEBOOK_SIZE)
    held_out_rows = rows_of_tokens(held_out, codes, CODEBOOK_SIZE)
    losses = fit(model, partial(next_token_loss, model), rows, BATCH, steps, random)
    with no_grad():
        held_out_loss = next_token_loss(model, held_out_rows).item()
    labels = [label for label in range(digits.CLASSES) for _ in range(drawings)]
    drawn = tokenizer.decode(draw(model, labels, random, TEMPERATURE))

    flat = [code for row in codes for code in row]
    result = {
        "seed": seed,
        "codebook_use": len(set(flat)) / CODEBOOK_SIZE,
        "perplexity": perplexity(flat),
        "unexplained_variance": unexplained_variance(held_out.images, reconstructions),
        "held_out_loss": held_out_loss,
        "table_loss": table_loss(rows, held_out_rows, CODEBOOK_SIZE),
        "recognized_real": accuracy(held_out, training.images, training.labels),
        "recognized_drawn": accuracy(held_out, drawn, labels),
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "tokenizer_losses": tokenizer_losses,
        "losses": losses,
        "seconds": time.perf_counter() - start,
    }
    report(result, held_out.images[:5], reconstructions[:5], drawn[::drawings])
    return result


def side_by_side(images: Sequence[Sequence[float]]) -> str:
    """Return digits as text, five in a line, next to each other."""
    texts = [ascii_image(rows_of(image, SIDE)) for image in images]
    lines = [zip(*texts[start : start + 5], strict=True) for start in range(0, len(texts), 5)]
    return "\n\n".join("\n".join("  " + "  ".join(parts) for parts in line) for line in lines)


def report(result: dict, images: list, reconstructions: list, drawn: list) -> None:
    """Print the losses, the measurements and some digits."""
    for name, losses in (("tokenizer", result["tokenizer_losses"]), ("transformer", result["losses"])):
        print(f"loss of the {name:11}  {sparkline(losses, 40)}  {losses[0]:.3f} → {losses[-1]:.3f}")
    print("\nfive held-out digits, and their reconstructions from 16 codes each:")
    print(side_by_side([*images, *reconstructions]))
    print(f"\ncodes that held-out digits use: {result['codebook_use']:.0%}; perplexity {result['perplexity']:.1f}")
    print(f"variance that the reconstructions leave unexplained: {result['unexplained_variance']:.0%}")
    print(f"\ndigits drawn from the labels 0 to 9, one code after another, at temperature {TEMPERATURE}:")
    print(side_by_side(drawn), "\ncross-entropy of held-out codes, in nats per code", sep="\n")
    print(f"  frequencies per label and position  {result['table_loss']:.3f}")
    print(f"  transformer                         {result['held_out_loss']:.3f}")
    print("digits whose nearest mean image is that of their label (chance: 10%)")
    print(f"  real {result['recognized_real']:.0%}, drawn {result['recognized_drawn']:.0%}")
    print(f"{result['parameters']:,} parameters of the transformer, {result['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn image tokens of digits, and draw digits, in pure Python.")
    parser.add_argument("--quick", action="store_true", help="few steps and drawings, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of every random draw (default 0)")
    options = parser.parse_args()
    quick = {"tokenizer_steps": 4 * QUICK_STEPS, "steps": QUICK_STEPS, "drawings": 1} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
