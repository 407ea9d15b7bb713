"""BLIP-2's first stage in pure Python, beside its paper (Li et al., arXiv:2301.12597).

A frozen eye gives nine vectors for an image. Four learned queries ask them for what the image's caption says: by finding the
caption among others (contrast), by telling it from a near miss (matching), and by writing it (generation). One set of weights
does all three, and a mask makes the difference. The images are handwritten digits, the captions their names, letter by letter:

    python -S -m lessons.lesson_03_blip2.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from functools import partial
from operator import eq
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.functional import concatenate, cross_entropy, embedding, gelu, linear, softmax
from shared.stdlib.nn import Embedding, LayerNorm, Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── What it learns from: digits and their names ────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted(set("".join(NAMES)))
BEGIN, WRITE, END = range(3)  # the first token of a text to be read, the first of one to be written, and the last
VOCABULARY = 3 + len(LETTERS)
TEXT = 2 + max(map(len, NAMES))
WINDOW, STRIDE = 4, 2
GRID = (digits.SIDE - WINDOW) // STRIDE + 1


def spelled(name: str) -> list[int]:
    """A name as tokens: begin, its letters, end."""
    return [BEGIN, *(3 + LETTERS.index(letter) for letter in name), END]


def padded(texts: list[list[int]]) -> list[list[int]]:
    return [text + [END] * (TEXT - len(text)) for text in texts]


def frozen_eye(images: list[list[int]]) -> Tensor:
    """What an eye that never learns makes of digits: [images, 9 windows, 16 pixels and 6 numbers that say where].

    The windows overlap. In the paper the eye is a vision transformer of a billion parameters; what the Q-Former sees of it is
    a list of vectors too.
    """
    side, numbers = digits.SIDE, []
    for image in images:
        for row in range(GRID):
            for column in range(GRID):
                corner = row * STRIDE * side + column * STRIDE
                for y in range(WINDOW):
                    start = corner + y * side
                    numbers += [pixel / digits.MAX_PIXEL for pixel in image[start : start + WINDOW]]
                numbers += [float(k == row) for k in range(GRID)] + [float(k == column) for k in range(GRID)]
    return Tensor(numbers, (len(images), GRID * GRID, WINDOW * WINDOW + 2 * GRID))


# ── Three tasks, three masks (section 3.2, figure 2) ───────────────────────────────────────────────────────────────────

HIDDEN = -math.inf


def task_mask(task: str, queries: int, lengths: list[int], text: int) -> Tensor:
    """[texts, 1, queries + text, queries + text], to be added to the scores: 0 where row i sees column j, −∞ where not.

    The sequence is [queries, text], and of text number k only the first lengths[k] tokens are there; padding is seen by nobody.
    "contrastive": queries see queries, words see words. "matching": all see all. "generation": queries see queries;
    a word sees the queries, itself and the words before it.
    """
    # exercise 3.2: three masks, spelled out
    size = queries + text

    def sees(i: int, j: int, length: int) -> bool:
        if max(i, j) >= queries + length:
            return False
        if task == "matching":
            return True
        if task == "contrastive":
            return (i < queries) == (j < queries)
        return j < queries or queries <= j <= i

    rows = [0.0 if sees(i, j, length) else HIDDEN for length in lengths for i in range(size) for j in range(size)]
    return Tensor(rows, (len(lengths), 1, size, size))
    # end exercise


# ── The Q-Former (section 3.1) ─────────────────────────────────────────────────────────────────────────────────────────


class Attention(Module):
    """Each token of x takes a weighted mean of what `context` holds, or of x itself, in several heads."""

    def __init__(self, width: int, heads: int, context_width: int, random: Random):
        self.heads = heads
        self.query = Linear(width, width, random)
        self.key = Linear(context_width, width, random)
        self.value = Linear(context_width, width, random)
        self.output = Linear(width, width, random)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        context = x if context is None else context
        batch, tokens, width = x.shape
        query, key, value = self._split(self.query(x)), self._split(self.key(context)), self._split(self.value(context))
        scores = query @ key.transpose() * (1.0 / math.sqrt(width // self.heads))
        weights = softmax(scores if mask is None else scores + mask)
        gathered = (weights @ value).permute(0, 2, 1, 3).reshape(batch, tokens, width)
        return self.output(gathered), weights

    def _split(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.heads, width // self.heads).permute(0, 2, 1, 3)


class MLP(Module):
    """Each token by itself: widen, GELU, narrow."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.up = Linear(width, mlp_dim, random)
        self.down = Linear(mlp_dim, width, random)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class QFormerBlock(Module):
    """Queries and words share the self-attention; only queries look at the image; each kind thinks for itself.

    Every part adds to what was there, and the sum is normed, as in BERT.
    """

    def __init__(self, width: int, heads: int, mlp_dim: int, context_width: int, looks: bool, random: Random):
        self.attention, self.attention_norm = Attention(width, heads, width, random), LayerNorm(width, 1e-12)
        self.cross_attention = Attention(width, heads, context_width, random) if looks else None
        self.cross_attention_norm = LayerNorm(width, 1e-12) if looks else None
        self.mlp, self.mlp_norm = MLP(width, mlp_dim, random), LayerNorm(width, 1e-12)
        self.text_mlp = MLP(width, mlp_dim, random)
        self.text_mlp_norm = LayerNorm(width, 1e-12)

    def forward(
        self, x: Tensor, queries: int, context: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The tokens, and where the queries looked: [batch, heads, queries, vectors], in a block that looks."""
        x = self.attention_norm(x + self.attention(x, mask=mask)[0])
        parts, looks = [], None
        if queries:
            asking = x[:, :queries]
            if self.cross_attention is not None:
                seen, looks = self.cross_attention(asking, context)
                asking = self.cross_attention_norm(asking + seen)
            parts.append(self.mlp_norm(asking + self.mlp(asking)))
        if x.shape[1] > queries:
            words = x[:, queries:]
            parts.append(self.text_mlp_norm(words + self.text_mlp(words)))
        return concatenate(parts, axis=1), looks


class QFormer(Module):
    """Blocks one behind the other; every other one looks at the image, beginning with the first."""

    def __init__(self, width: int, depth: int, heads: int, mlp_dim: int, context_width: int, random: Random):
        self.norm = LayerNorm(width, 1e-12)
        self.blocks = [
            QFormerBlock(width, heads, mlp_dim, context_width, layer % 2 == 0, random) for layer in range(depth)
        ]

    def forward(
        self, x: Tensor, queries: int, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        x, maps = self.norm(x), []
        for block in self.blocks:
            x, looks = block(x, queries, context, mask)
            if looks is not None:
                maps.append(looks)
        return x, maps


class Retriever(Module):
    """The queries, words and their places, the Q-Former, and the space in which images and texts meet."""

    def __init__(
        self,
        queries: int,
        width: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        context_width: int,
        shared: int,
        random: Random,
    ):
        self.queries = normal((queries, width), 0.5, random, requires_grad=True)
        self.words = Embedding(VOCABULARY, width, random)
        self.positions = Embedding(TEXT, width, random)
        self.qformer = QFormer(width, depth, heads, mlp_dim, context_width, random)
        self.image_projection = Linear(width, shared, random)
        self.text_projection = Linear(width, shared, random)
        self.match = Linear(width, 2, random)

    def embed(self, texts: list[list[int]]) -> Tensor:
        rows = embedding([token for text in texts for token in text], self.words.weight)
        return rows.reshape(len(texts), len(texts[0]), rows.shape[1]) + self.positions.weight[: len(texts[0])]

    def together(self, task: str, features: Tensor, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Queries and words after one pass under the mask of a task; texts of any lengths."""
        count, width = self.queries.shape
        lengths, texts = list(map(len, texts)), padded(texts)
        x = concatenate([self.queries.expand(len(texts), count, width), self.embed(texts)], axis=1)
        x, _ = self.qformer(x, count, features, task_mask(task, count, lengths, TEXT))
        return x[:, :count], x[:, count:]

    def image_vectors(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[images, queries, shared], each of length 1, and where the queries looked in each block that looks."""
        count, width = self.queries.shape
        x, maps = self.qformer(self.queries.expand(features.shape[0], count, width), count, features)
        return unit(self.image_projection(x)), maps

    def text_vectors(self, texts: list[list[int]]) -> Tensor:
        """[texts, shared], each of length 1: the first token, which has seen the letters and no image."""
        x, _ = self.qformer(self.embed(padded(texts)), 0, mask=task_mask("matching", 0, list(map(len, texts)), TEXT))
        return unit(self.text_projection(x[:, 0]))


def unit(x: Tensor) -> Tensor:
    """Every row scaled to length 1."""
    return x / (x * x).sum(-1, keepdims=True).sqrt()


# ── Three losses (section 3.2) ─────────────────────────────────────────────────────────────────────────────────────────


def similarities(images: Tensor, texts: Tensor) -> Tensor:
    """[images, queries, shared] and [texts, shared] → [images, texts]: the cosine of the query that fits best."""
    # exercise 3.1: the best query speaks for the image
    count, queries, shared = images.shape
    cosines = images.reshape(count * queries, shared) @ texts.transpose()
    return cosines.reshape(count, queries, texts.shape[0]).max(1)
    # end exercise


def negative_chances(scores: Tensor) -> list[list[float]]:
    """By which chance each candidate becomes a row's negative: the better it fits, the likelier; never its own partner."""
    chances = []
    for row, fits in enumerate(softmax(scores).tolist()):
        others = [0.0 if column == row else chance + 1e-6 for column, chance in enumerate(fits)]
        chances.append([chance / sum(others) for chance in others])
    return chances


class FirstStage(Module):
    """The training: one batch of pairs, three losses."""

    def __init__(self, retriever: Retriever, random: Random):
        width = retriever.queries.shape[1]
        self.retriever = retriever
        self.log_temperature = full((), math.log(0.07), requires_grad=True)
        self.writer, self.writer_norm = Linear(width, width, random), LayerNorm(width, 1e-5)
        self.writer_bias = full((VOCABULARY,), 0.0, requires_grad=True)

    def contrast(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        """How well each image fits each text, over the temperature: [pairs, pairs], the pairs on the diagonal."""
        queries, words = self.retriever.together("contrastive", features, texts)
        images = unit(self.retriever.image_projection(queries))
        return similarities(images, unit(self.retriever.text_projection(words[:, 0]))) / self.log_temperature.exp()

    def losses(
        self, features: Tensor, texts: list[list[int]], choose: Random, negatives: list[list[int]] | None = None
    ) -> dict[str, Tensor]:
        """Each loss by its name; hard negatives are drawn with `choose`, or given: other texts, then other images."""
        scores, own = self.contrast(features, texts), list(range(len(texts)))
        if negatives is None:
            negatives = [
                [choose.choices(own, chances)[0] for chances in negative_chances(side)]
                for side in (scores, scores.transpose())
            ]
        return {
            "contrastive": (cross_entropy(scores, own) + cross_entropy(scores.transpose(), own)) * 0.5,
            "matching": self._matching(features, texts, *negatives),
            "generation": self._generation(features, texts),
        }

    def _matching(
        self, features: Tensor, texts: list[list[int]], other_texts: list[int], other_images: list[int]
    ) -> Tensor:
        shuffled = concatenate([features[number : number + 1] for number in other_images])
        queries, _ = self.retriever.together(
            "matching",
            concatenate([features, features, shuffled]),
            [*texts, *(texts[number] for number in other_texts), *texts],
        )
        logits = self.retriever.match(queries).mean(1)  # each query that has read the text votes
        return cross_entropy(logits, [1] * len(texts) + [0] * (2 * len(texts)))

    def _generation(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        logits = self.write(features, texts)
        spoken = [logits[number, : len(text) - 1] for number, text in enumerate(texts)]
        return cross_entropy(concatenate(spoken), [token for text in texts for token in text[1:]])

    def write(self, features: Tensor, texts: list[list[int]]) -> Tensor:
        """Logits of the letter after each token: [texts, TEXT, vocabulary]; what is known of the image comes through the queries."""
        _, words = self.retriever.together("generation", features, [[WRITE, *text[1:]] for text in texts])
        thought = self.writer_norm(gelu(self.writer(words)))
        return linear(thought, self.retriever.words.weight, self.writer_bias)


# ── Learning ───────────────────────────────────────────────────────────────────────────────────────────────────────────

QUERIES, WIDTH, DEPTH, HEADS, HIDDEN_WIDTH, SHARED = 4, 16, 2, 2, 32, 12
STEPS, QUICK_STEPS = 160, 8
LEARNING_RATE = 1.5e-2
SHOWN, WRITTEN = 200, 100


def build(random: Random) -> FirstStage:
    context_width = frozen_eye([[0] * digits.SIDE**2]).shape[2]
    return FirstStage(Retriever(QUERIES, WIDTH, DEPTH, HEADS, HIDDEN_WIDTH, context_width, SHARED, random), random)


def fit(model: FirstStage, data: digits.Digits, steps: int, random: Random) -> list[float]:
    """Each batch holds one digit of each name: a name twice would make two pairs each other's false negatives."""
    of_name = [[place for place, label in enumerate(data.labels) if label == name] for name in range(10)]

    def loss_at(step: int) -> Tensor:
        images = [data.images[random.choice(places)] for places in of_name]
        losses = model.losses(frozen_eye(images), [spelled(name) for name in NAMES], random)
        return losses["contrastive"] + losses["matching"] + losses["generation"]

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="Q-Former")


def found_by_contrast(model: FirstStage, images: list[list[int]]) -> tuple[list[int], list[Tensor]]:
    """The best-fitting of the ten names for each image, and where the queries looked."""
    with no_grad():
        vectors, maps = model.retriever.image_vectors(frozen_eye(images))
        scores = similarities(vectors, model.retriever.text_vectors([spelled(name) for name in NAMES])).tolist()
    return [row.index(max(row)) for row in scores], maps


def written(model: FirstStage, images: list[list[int]]) -> list[str]:
    """The name that it writes for each image, always taking the likeliest letter."""
    features, texts = frozen_eye(images), [[BEGIN] for _ in images]
    with no_grad():
        for place in range(TEXT - 1):
            logits = model.write(features, texts)[:, place].tolist()
            texts = [[*text, row.index(max(row))] for text, row in zip(texts, logits, strict=True)]
    names = []
    for text in texts:
        letters = text[1 : text.index(END)] if END in text else text[1:]
        names.append("".join(LETTERS[token - 3] if token >= 3 else "?" for token in letters))
    return names


# ── What it saw ────────────────────────────────────────────────────────────────────────────────────────────────────────


def query_pictures(image: list[int], looks: Tensor) -> str:
    """A digit in characters, and beside it where each query looks (mean of the heads): [heads, queries, windows]."""
    side, pictures = digits.SIDE, []
    pictures.append(ascii_image([image[row * side : (row + 1) * side] for row in range(side)]))
    for seen in looks.mean(0).tolist():
        # A pixel lies in up to four windows; the nearest of the nine stands for it.
        nearest = [min(max(place - 1, 0) // STRIDE, GRID - 1) for place in range(side)]
        pictures.append(ascii_image([[seen[nearest[y] * GRID + nearest[x]] for x in range(side)] for y in range(side)]))
    return "\n".join("  " + "  ".join(lines) for lines in zip(*pictures, strict=True))


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits, and print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = build(random)
    losses = fit(model, kept, steps, random)
    images, labels = held_out.images[:SHOWN], held_out.labels[:SHOWN]
    found, maps = found_by_contrast(model, images)
    names = written(model, images[:WRITTEN])
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(parameter.data) for parameter in model.parameters().values()),
        "contrast_accuracy": sum(map(eq, found, labels)) / len(labels),
        "writing_accuracy": sum(name == NAMES[label] for name, label in zip(names, labels, strict=False)) / len(names),
        "baseline_accuracy": sum(map(eq, digits.classify_by_nearest_mean(kept, images), labels)) / len(labels),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(labels)} digits that it never saw (seed {seed}); a guess is right 10 % of the time")
    print(f"  nearest class mean                   {result['baseline_accuracy']:6.1%}")
    print(f"  its name found among ten (contrast)  {result['contrast_accuracy']:6.1%}")
    print(f"  its name written, every letter right {result['writing_accuracy']:6.1%}   ({len(names)} digits)")
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s")
    print(
        f"\na held-out {NAMES[labels[0]]}, written “{names[0]}”; at the right, where each of its {QUERIES} queries looks:"
    )
    print(query_pictures(images[0], maps[-1][0]))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Q-Former on digits and their names in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    main()
