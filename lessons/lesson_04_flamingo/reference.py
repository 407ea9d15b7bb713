"""Flamingo in pure Python, beside its paper (Alayrac et al., arXiv:2204.14198).

A language model that knows the names of digits, letter by letter, and has never seen one, is frozen. Between its blocks go
cross-attentions whose gates begin closed: at first nothing has changed, to the last bit. Then they open, and the model
names what it is shown, each time the latest image of a sequence that holds several:

    python -S -m lessons.lesson_04_flamingo.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from random import Random

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.functional import concatenate, cross_entropy, silu, softmax
from shared.stdlib.nn import Embedding, LayerNorm, Linear, Module, RMSNorm
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Digits, their names, and documents of both ─────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted(set("".join(NAMES)))
IMAGE, END = 0, 1  # where an image stands; the end of what is said of it
VOCABULARY = 2 + len(LETTERS)
LONGEST = max(map(len, NAMES)) + 1
WINDOW, STRIDE = 4, 2
GRID = (digits.SIDE - WINDOW) // STRIDE + 1


def spelled(name: str) -> list[int]:
    """A name as tokens: its letters, end."""
    return [*(2 + LETTERS.index(letter) for letter in name), END]


def frozen_eye(images: list[list[int]]) -> Tensor:
    """What an eye that never learns makes of digits: [images, 9 windows, 16 pixels and 6 numbers that say where]."""
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


def latest_images(row: list[int]) -> list[int]:
    """Which image each token of a row looks at, counted from 0: the latest so far, −1 before the first (section 2.3)."""
    looks, seen = [], -1
    for token in row:
        seen += token == IMAGE
        looks.append(seen)
    return looks


HIDDEN = -math.inf


def media_mask(looks: list[list[int]], images: int, latents: int) -> Tensor:
    """[rows, 1, tokens, images · latents], to be added to the scores: 0 where the latent is of the token's image, else −∞."""
    # exercise 4.1: each word sees one image
    row = [
        0.0 if look == image else HIDDEN
        for of_row in looks
        for look in of_row
        for image in range(images)
        for _ in range(latents)
    ]
    return Tensor(row, (len(looks), 1, len(looks[0]), images * latents))
    # end exercise


# ── The frozen language model: a small Llama (lesson 0) ────────────────────────────────────────────────────────────────


def rotate(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Turn queries or keys [batch, heads, tokens, head_dim] by their places (arXiv:2104.09864)."""
    tokens, head_dim = x.shape[-2:]
    half = head_dim // 2
    angles = [place * base ** (-2 * i / head_dim) for place in range(tokens) for i in range(half)]
    cos, sin = (Tensor(list(map(turn, angles)), (tokens, half)) for turn in (math.cos, math.sin))
    first, second = x[:, :, :, :half], x[:, :, :, half:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(Module):
    """x looks at a context, or at itself with its places known; no biases. `head_dim` need not be width / heads."""

    def __init__(
        self, width: int, heads: int, random: Random, *, context_width: int | None = None, head_dim: int | None = None
    ):
        head_dim = width // heads if head_dim is None else head_dim
        context_width = width if context_width is None else context_width
        self.heads, self.head_dim = heads, head_dim
        self.query = Linear(width, heads * head_dim, random, bias=False)
        self.key = Linear(context_width, heads * head_dim, random, bias=False)
        self.value = Linear(context_width, heads * head_dim, random, bias=False)
        self.output = Linear(heads * head_dim, width, random, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What each token gathers, and how it looked: [batch, heads, tokens, keys]. One that sees nothing gathers zeros."""
        query, key = self._split(self.query(x)), self._split(self.key(x if context is None else context))
        value = self._split(self.value(x if context is None else context))
        if context is None:
            query, key = rotate(query), rotate(key)
        scores = query @ key.transpose() * (1.0 / math.sqrt(self.head_dim))
        weights = softmax(scores if mask is None else scores + mask)
        gathered = (weights @ value).permute(0, 2, 1, 3).reshape(*x.shape[:2], self.heads * self.head_dim)
        return self.output(gathered), weights

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, self.head_dim).permute(0, 2, 1, 3)


class SwiGLU(Module):
    """Each token by itself: one matrix opens and closes what the other says."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.gate = Linear(width, mlp_dim, random, bias=False)
        self.up = Linear(width, mlp_dim, random, bias=False)
        self.down = Linear(mlp_dim, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(Module):
    """Look back, then think; both add to what was there."""

    def __init__(self, width: int, heads: int, mlp_dim: int, random: Random):
        self.attention_norm, self.attention = RMSNorm(width, 1e-5), Attention(width, heads, random)
        self.mlp_norm, self.mlp = RMSNorm(width, 1e-5), SwiGLU(width, mlp_dim, random)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask=mask)[0]
        return x + self.mlp(self.mlp_norm(x))


class LanguageModel(Module):
    """Rows of tokens, equally long, → logits of the token after each: [rows, tokens, vocabulary]."""

    def __init__(self, width: int, layers: int, heads: int, mlp_dim: int, random: Random):
        self.embedding = Embedding(VOCABULARY, width, random)
        self.blocks = [Block(width, heads, mlp_dim, random) for _ in range(layers)]
        self.norm = RMSNorm(width, 1e-5)
        self.output = Linear(width, VOCABULARY, random, bias=False)

    def embed(self, rows: list[list[int]]) -> Tensor:
        x = self.embedding([token for row in rows for token in row])
        return x.reshape(len(rows), len(rows[0]), x.shape[-1])

    def forward(self, rows: list[list[int]]) -> Tensor:
        x = self.embed(rows)
        for block in self.blocks:
            x = block(x, causal_mask(len(rows[0])))
        return self.output(self.norm(x))


def causal_mask(tokens: int) -> Tensor:
    return Tensor([0.0 if k <= q else HIDDEN for q in range(tokens) for k in range(tokens)], (tokens, tokens))


# ── The resampler (section 2.1, figure 5) ──────────────────────────────────────────────────────────────────────────────


class MLP(Module):
    """Each latent by itself: widen fourfold, cut off below zero, narrow."""

    def __init__(self, width: int, random: Random):
        self.up = Linear(width, 4 * width, random, bias=False)
        self.down = Linear(4 * width, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu())


class ResamplerBlock(Module):
    """Latents look at the image and at each other, in one attention; then each thinks."""

    def __init__(self, width: int, heads: int, head_dim: int, random: Random):
        self.context_norm, self.latents_norm = LayerNorm(width, 1e-5), LayerNorm(width, 1e-5)
        self.attention = Attention(width, heads, random, head_dim=head_dim)
        self.mlp_norm, self.mlp = LayerNorm(width, 1e-5), MLP(width, random)

    def forward(self, latents: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        asking = self.latents_norm(latents)
        seen, looks = self.attention(asking, concatenate([self.context_norm(context), asking], axis=1))
        latents = latents + seen
        return latents + self.mlp(self.mlp_norm(latents)), looks


class PerceiverResampler(Module):
    """However many vectors the eye gives, an image becomes `latents` of them: [images, latents, width]."""

    def __init__(self, width: int, latents: int, depth: int, heads: int, head_dim: int, random: Random):
        self.latents = normal((latents, width), 1.0, random, requires_grad=True)
        self.blocks = [ResamplerBlock(width, heads, head_dim, random) for _ in range(depth)]
        self.norm = LayerNorm(width, 1e-5)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        latents, maps = self.latents.expand(features.shape[0], *self.latents.shape), []
        for block in self.blocks:
            latents, looks = block(latents, features)
            maps.append(looks)
        return self.norm(latents), maps


# ── What is inserted (section 2.2, figure 4) ───────────────────────────────────────────────────────────────────────────


def gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + tanh(gate) · update: at gate 0 it is x, to the last bit."""
    # exercise 4.2: a gate that begins closed
    return x + gate.tanh() * update
    # end exercise


class GatedCrossAttention(Module):
    """Words look at their image, then think; each is added through a gate of its own that begins closed."""

    def __init__(self, width: int, heads: int, mlp_dim: int, media_width: int, random: Random):
        self.attention_norm, self.mlp_norm = RMSNorm(width, 1e-5), RMSNorm(width, 1e-5)
        self.attention = Attention(width, heads, random, context_width=media_width)
        self.mlp = SwiGLU(width, mlp_dim, random)
        self.attention_gate = full((width,), 0.0, requires_grad=True)
        self.mlp_gate = full((width,), 0.0, requires_grad=True)

    def forward(self, x: Tensor, media: Tensor, mask: Tensor) -> Tensor:
        x = gated(x, self.attention(self.attention_norm(x), media, mask)[0], self.attention_gate)
        return gated(x, self.mlp(self.mlp_norm(x)), self.mlp_gate)


class Flamingo(Module):
    """A language model with a gated cross-attention before every block, and a resampler."""

    def __init__(self, language: LanguageModel, resampler: PerceiverResampler, inserted: list[GatedCrossAttention]):
        self.language, self.resampler, self.inserted = language, resampler, inserted

    def forward(self, rows: list[list[int]], features: Tensor) -> Tensor:
        """Logits [rows, tokens, vocabulary]; `features` are those of all rows' images, in order, as many in each row."""
        latents, _ = self.resampler(features)
        images = features.shape[0] // len(rows)
        media = latents.reshape(len(rows), images * latents.shape[1], latents.shape[2])
        seen = media_mask([latest_images(row) for row in rows], images, latents.shape[1])
        x, causal = self.language.embed(rows), causal_mask(len(rows[0]))
        for inserted, block in zip(self.inserted, self.language.blocks, strict=True):
            x = block(inserted(x, media, seen), causal)
        return self.language.output(self.language.norm(x))


def freeze(module: Module) -> None:
    """From now on no gradient is taken of its weights, and no optimizer finds them; gradients still pass through."""
    for parameter in module.parameters().values():
        parameter.requires_grad = False


# ── Learning ───────────────────────────────────────────────────────────────────────────────────────────────────────────

WIDTH, LAYERS, HEADS, HIDDEN_WIDTH = 24, 2, 2, 32
LATENTS, DEPTH, RESAMPLER_HEADS, HEAD_DIM = 4, 1, 2, 8
IMAGES = 2
ROWS = 8
TEXT_STEPS, STEPS = 60, 150
QUICK_TEXT_STEPS, QUICK_STEPS = 6, 5
LEARNING_RATE = 1.5e-2
ASKED, QUICK_ASKED = 40, 8


def loss_of(logits: Tensor, rows: list[list[int]], lengths: list[int]) -> Tensor:
    """The mean surprise at every letter and end; not at `<image>`, which is put there, nor at what fills a row up."""
    places = [(k, t) for k, row in enumerate(rows) for t in range(1, lengths[k]) if row[t] != IMAGE]
    spoken = concatenate([logits[k, t - 1 : t] for k, t in places])
    return cross_entropy(spoken, [rows[k][t] for k, t in places])


def filled(rows: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Rows of one length, the shorter ones filled up at the end, and how long each was."""
    longest = max(map(len, rows))
    return [row + [END] * (longest - len(row)) for row in rows], list(map(len, rows))


def document(labels: list[int]) -> list[int]:
    """An image and its name, another and its name, …"""
    return [token for label in labels for token in [IMAGE, *spelled(NAMES[label])]]


def learn_names(language: LanguageModel, steps: int, random: Random) -> list[float]:
    """Text alone: which letter comes after which. What it is that they name, it cannot know."""

    def loss_at(step: int) -> Tensor:
        names = [[END, *(token for _ in range(IMAGES) for token in spelled(random.choice(NAMES)))] for _ in range(ROWS)]
        rows, lengths = filled(names)
        return loss_of(language(rows), rows, lengths)

    return learn(language, loss_at, steps, "language model")


def learn_to_look(model: Flamingo, data: digits.Digits, steps: int, random: Random) -> list[float]:
    """Documents of two images each; of the model, only what is not frozen learns."""

    def loss_at(step: int) -> Tensor:
        chosen = data.subset(random.sample(range(len(data.images)), ROWS * IMAGES))
        labels = [chosen.labels[row * IMAGES : (row + 1) * IMAGES] for row in range(ROWS)]
        rows, lengths = filled(list(map(document, labels)))
        return loss_of(model(rows, frozen_eye(chosen.images)), rows, lengths)

    return learn(model, loss_at, steps, "Flamingo")


def learn(model: Module, loss_at: Callable[[int], Tensor], steps: int, label: str) -> list[float]:
    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.95))
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label=label)


def build(language: LanguageModel, random: Random) -> Flamingo:
    width = frozen_eye([[0] * digits.SIDE**2]).shape[2]
    resampler = PerceiverResampler(width, LATENTS, DEPTH, RESAMPLER_HEADS, HEAD_DIM, random)
    inserted = [GatedCrossAttention(WIDTH, HEADS, HIDDEN_WIDTH, width, random) for _ in range(LAYERS)]
    return Flamingo(language, resampler, inserted)


def named(model: Flamingo, first: digits.Digits, second: list[list[int]]) -> list[str]:
    """What it writes of each second image, behind a first one with its right name; always the likeliest letter."""
    prompts = [[*document([label]), IMAGE] for label in first.labels]
    pairs = [image for pair in zip(first.images, second, strict=True) for image in pair]
    features, texts = frozen_eye(pairs), [[] for _ in second]
    with no_grad():
        for _ in range(LONGEST):
            rows, lengths = filled([prompt + text for prompt, text in zip(prompts, texts, strict=True)])
            logits = model(rows, features)
            for text, length, row in zip(texts, lengths, logits.tolist(), strict=True):
                text.append(row[length - 1].index(max(row[length - 1])))
    ends = [text.index(END) if END in text else len(text) for text in texts]
    return [
        "".join(LETTERS[t - 2] if t > 1 else "?" for t in text[:end]) for text, end in zip(texts, ends, strict=True)
    ]


def share(names: list[str], labels: list[int]) -> float:
    return sum(name == NAMES[label] for name, label in zip(names, labels, strict=True)) / len(labels)


def run(
    *, text_steps: int = TEXT_STEPS, steps: int = STEPS, asked: int = ASKED, seed: int = 0
) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits, and print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    language = LanguageModel(WIDTH, LAYERS, HEADS, HIDDEN_WIDTH, random)
    text_losses = learn_names(language, text_steps, random)
    held = list(language.parameters().values())
    frozen = [list(weight.data) for weight in held]
    freeze(language)
    model = build(language, random)
    first, second, other = (held_out.subset(list(range(k * asked, (k + 1) * asked))) for k in range(3))

    # Gates at zero: the text's logits are the language model's own.
    rows, _ = filled([document([label, label]) for label in first.labels[:4]])
    with no_grad():
        unchanged = language(rows).data == model(rows, frozen_eye(first.images[:8])).data
        blind = named(model, first, second.images)
    losses = learn_to_look(model, kept, steps, random)
    names, followed = named(model, first, second.images), named(model, first, other.images)
    gates = [model.inserted[layer].attention_gate for layer in range(LAYERS)]
    result = {
        "seed": seed,
        "steps": steps,
        "asked": asked,
        "parameters": sum(len(parameter.data) for parameter in model.parameters().values()),
        "unchanged_at_zero": unchanged,
        "frozen_stayed": [list(weight.data) for weight in held] == frozen,
        "accuracy": share(names, second.labels),
        "accuracy_of_others": share(followed, other.labels),
        "blind_accuracy": share(blind, second.labels),
        "gate": sum(abs(math.tanh(g)) for gate in gates for g in gate.data) / (LAYERS * WIDTH),
        "seconds": time.perf_counter() - start,
        "losses": losses,
        "text_losses": text_losses,
    }
    report(result, second.images[0], names[0], model)
    return result


# ── What it saw ────────────────────────────────────────────────────────────────────────────────────────────────────────


def latent_pictures(model: Flamingo, image: list[int]) -> str:
    """A digit in characters, and beside it where each latent looks (mean of the heads; a pixel stands for its nearest window)."""
    with no_grad():
        _, maps = model.resampler(frozen_eye([image]))
    side = digits.SIDE
    pictures = [ascii_image([image[row * side : (row + 1) * side] for row in range(side)])]
    nearest = [min(max(place - 1, 0) // STRIDE, GRID - 1) for place in range(side)]
    for seen in maps[-1].mean(1)[0].tolist():
        pictures.append(ascii_image([[seen[nearest[y] * GRID + nearest[x]] for x in range(side)] for y in range(side)]))
    return "\n".join("  " + "  ".join(lines) for lines in zip(*pictures, strict=True))


def report(result: dict, image: list[int], name: str, model: Flamingo) -> None:
    losses = result["losses"]
    print(f"\ngates at zero: logits are the language model's own, to the last bit: {result['unchanged_at_zero']}")
    print(f"loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"frozen weights as before, every bit: {result['frozen_stayed']}; gates, mean size: {result['gate']:.2f}")
    print(
        f"\nheld out: {result['asked']} pairs of digits that it never saw; the second is named, every letter right (a guess: 10 %)"
    )
    print(f"  gates closed, blind             {result['blind_accuracy']:6.1%}")
    print(f"  gates open                      {result['accuracy']:6.1%}")
    print(f"  … with other second images      {result['accuracy_of_others']:6.1%}   (of those, in the same text)")
    print(f"  {result['parameters']:,} parameters learned, {result['seconds']:.0f} s")
    print(f"\na held-out digit that it calls “{name}”; at the right, where each of {LATENTS} latents looks:")
    print(latent_pictures(model, image))


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach a frozen language model to look, in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    options = parser.parse_args()
    steps = {"text_steps": QUICK_TEXT_STEPS, "steps": QUICK_STEPS, "asked": QUICK_ASKED} if options.quick else {}
    run(**steps, seed=options.seed)


if __name__ == "__main__":
    main()
