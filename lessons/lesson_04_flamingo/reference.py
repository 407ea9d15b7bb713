"""Flamingo in pure Python (Alayrac et al., arXiv:2204.14198).

A language model is trained on the names of digits, letter by letter, without images, and then frozen. Gated
cross-attention layers are inserted between its blocks. At first all gates are 0 and the logits are unchanged, to the
last bit. After training, the model names the latest image of a sequence that contains several:

    python -S -m lessons.lesson_04_flamingo.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

from shared.stdlib import digits
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.decoder import Decoder, SwiGLU
from shared.stdlib.digit_windows import FEATURES, draw_attention, window_features
from shared.stdlib.functional import concatenate, cross_entropy
from shared.stdlib.nn import LayerNorm, Linear, Module, MultiHeadAttention, RMSNorm
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Digits, their names, and documents of both ────────────────────────────────────────────────────────────────────────

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted(set("".join(NAMES)))
IMAGE, END = 0, 1  # token that represents an image, and last token of a name
VOCAB_SIZE = 2 + len(LETTERS)
MAX_NAME_TOKENS = max(map(len, NAMES)) + 1


def tokenize(name: str) -> list[int]:
    """Return the token ids of a name: its letters, end."""
    return [*(2 + LETTERS.index(letter) for letter in name), END]


def document(labels: list[int]) -> list[int]:
    """Return the token ids of a document: an image and its name, another image and its name, …"""
    return [token_id for label in labels for token_id in [IMAGE, *tokenize(NAMES[label])]]


def pad(rows: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Return rows of one length, the shorter ones padded at the end, and their original lengths."""
    longest = max(map(len, rows))
    return [row + [END] * (longest - len(row)) for row in rows], list(map(len, rows))


def latest_image_index(row: list[int]) -> list[int]:
    """Return the index of the image that each token attends to: the latest, or −1 before the first (section 2.3)."""
    image_index, latest = [], -1
    for token_id in row:
        latest += token_id == IMAGE
        image_index.append(latest)
    return image_index


def cross_attention_mask(image_index: list[list[int]], images: int, latents: int) -> Tensor:
    """Return the scores' additive mask [rows, 1, tokens, images · latents]: 0 for the token's image, else −∞."""
    # exercise 4.1: each token attends to one image
    values = [
        0.0 if index == image else -math.inf
        for row in image_index
        for index in row
        for image in range(images)
        for _ in range(latents)
    ]
    return Tensor(values, (len(image_index), 1, len(image_index[0]), images * latents))
    # end exercise


# ── The perceiver resampler (section 2.1, figure 5) ───────────────────────────────────────────────────────────────────


class ReluMLP(Module):
    """down(relu(up(x))), applied to each latent separately."""

    def __init__(self, width: int, random: Random):
        self.up = Linear(width, 4 * width, random, bias=False)
        self.down = Linear(4 * width, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu())


class ResamplerBlock(Module):
    """Attention of the latents to the image and to each other, then an MLP."""

    def __init__(self, width: int, heads: int, head_dim: int, random: Random):
        self.context_norm, self.latents_norm = LayerNorm(width, 1e-5), LayerNorm(width, 1e-5)
        self.attention = MultiHeadAttention(width, heads, random, head_dim=head_dim, bias=False)
        self.mlp_norm, self.mlp = LayerNorm(width, 1e-5), ReluMLP(width, random)

    def forward(self, latents: Tensor, features: Tensor) -> Tensor:
        latents = latents + self.attention(*self.attention_inputs(latents, features))
        return latents + self.mlp(self.mlp_norm(latents))

    def attention_inputs(self, latents: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalized latents, which attend, and what they attend to: the features, then the latents."""
        queries = self.latents_norm(latents)
        return queries, concatenate([self.context_norm(features), queries], axis=1)


class PerceiverResampler(Module):
    """Map the feature vectors of an image, however many, to a fixed number of latents: [images, latents, width]."""

    def __init__(self, width: int, latents: int, depth: int, heads: int, head_dim: int, random: Random):
        self.latents = normal((latents, width), 1.0, random, requires_grad=True)
        self.blocks = [ResamplerBlock(width, heads, head_dim, random) for _ in range(depth)]
        self.norm = LayerNorm(width, 1e-5)

    def forward(self, features: Tensor) -> Tensor:
        latents = self.latents.expand(features.shape[0], *self.latents.shape)
        for block in self.blocks:
            latents = block(latents, features)
        return self.norm(latents)

    def attention_maps(self, features: Tensor) -> list[Tensor]:
        """Return each block's attention probabilities [images, heads, latents, windows and latents]."""
        latents, maps = self.latents.expand(features.shape[0], *self.latents.shape), []
        for block in self.blocks:
            maps.append(block.attention.weights(*block.attention_inputs(latents, features)))
            latents = block(latents, features)
        return maps


# ── Gated cross-attention (section 2.2, figure 4) ─────────────────────────────────────────────────────────────────────


def gated_residual(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """Return x + tanh(gate) · update, which equals x to the last bit at gate 0."""
    # exercise 4.2: a residual with a tanh gate
    return x + gate.tanh() * update
    # end exercise


class GatedCrossAttention(Module):
    """Cross-attention of text to images, then an MLP, each added through a gate that is initially 0."""

    def __init__(self, width: int, heads: int, mlp_dim: int, visual_width: int, random: Random):
        self.attention_norm, self.mlp_norm = RMSNorm(width, 1e-5), RMSNorm(width, 1e-5)
        self.attention = MultiHeadAttention(width, heads, random, context_width=visual_width, bias=False)
        self.mlp = SwiGLU(width, mlp_dim, random)
        self.attention_gate = full((width,), 0.0, requires_grad=True)
        self.mlp_gate = full((width,), 0.0, requires_grad=True)

    def forward(self, x: Tensor, visual_tokens: Tensor, mask: Tensor) -> Tensor:
        x = gated_residual(x, self.attention(self.attention_norm(x), visual_tokens, mask), self.attention_gate)
        return gated_residual(x, self.mlp(self.mlp_norm(x)), self.mlp_gate)


class Flamingo(Module):
    """A language model with gated cross-attention before every block, and a resampler."""

    def __init__(self, language_model: Decoder, resampler: PerceiverResampler, layers: list[GatedCrossAttention]):
        self.language_model, self.resampler, self.cross_attention_layers = language_model, resampler, layers

    def forward(self, rows: list[list[int]], features: Tensor) -> Tensor:
        """Return logits [rows, tokens, vocabulary]; `features` of all rows' images in order, equally many per row."""
        latents = self.resampler(features)
        images = features.shape[0] // len(rows)
        visual_tokens = latents.reshape(len(rows), images * latents.shape[1], latents.shape[2])
        mask = cross_attention_mask([latest_image_index(row) for row in rows], images, latents.shape[1])
        x = self.language_model.embed(rows)
        for cross_attention, block in zip(self.cross_attention_layers, self.language_model.blocks, strict=True):
            x = block(cross_attention(x, visual_tokens, mask))
        return self.language_model.output(self.language_model.norm(x))


def freeze(module: Module) -> None:
    """Exclude a module's weights from gradients and optimizers; gradients still flow through it."""
    for parameter in module.parameters().values():
        parameter.requires_grad = False


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sizes(NamedTuple):
    """The sizes of the language model, of the layers inserted into it, and of the resampler."""

    width: int = 24
    depth: int = 2
    heads: int = 2
    mlp_dim: int = 32
    visual_width: int = FEATURES
    latents: int = 4
    resampler_depth: int = 1
    resampler_heads: int = 2
    head_dim: int = 8


IMAGES_PER_ROW, ROWS = 2, 8
TEXT_STEPS, STEPS, PAIRS = 60, 150, 40
QUICK_TEXT_STEPS, QUICK_STEPS, QUICK_PAIRS = 6, 5, 8
LEARNING_RATE = 1.5e-2


def build_language_model(sizes: Sizes, random: Random) -> Decoder:
    """Return an untrained language model."""
    return Decoder(VOCAB_SIZE, sizes.width, sizes.depth, sizes.heads, sizes.mlp_dim, random)


def build_flamingo(language_model: Decoder, sizes: Sizes, random: Random) -> Flamingo:
    """Return a Flamingo around a language model, with untrained resampler and inserted layers."""
    visual_width, heads, head_dim = sizes.visual_width, sizes.resampler_heads, sizes.head_dim
    resampler = PerceiverResampler(visual_width, sizes.latents, sizes.resampler_depth, heads, head_dim, random)
    layers = [
        GatedCrossAttention(sizes.width, sizes.heads, sizes.mlp_dim, visual_width, random) for _ in range(sizes.depth)
    ]
    return Flamingo(language_model, resampler, layers)


def text_loss(logits: Tensor, rows: list[list[int]], lengths: list[int]) -> Tensor:
    """Return the mean cross-entropy of every letter and end token; images and padding are left out."""
    targets = [(k, t) for k, row in enumerate(rows) for t in range(1, lengths[k]) if row[t] != IMAGE]
    predictions = concatenate([logits[k, t - 1 : t] for k, t in targets])
    return cross_entropy(predictions, [rows[k][t] for k, t in targets])


def train_on_text(language_model: Decoder, steps: int, random: Random) -> list[float]:
    """Train the language model on names alone, without images."""

    def loss_at(step: int) -> Tensor:
        names = [
            [END, *(token_id for _ in range(IMAGES_PER_ROW) for token_id in tokenize(random.choice(NAMES)))]
            for _ in range(ROWS)
        ]
        rows, lengths = pad(names)
        return text_loss(language_model(language_model.embed(rows)), rows, lengths)

    return fit(language_model, loss_at, steps, "language model")


def train_on_images(model: Flamingo, data: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the weights that are not frozen on documents of two images each."""

    def loss_at(step: int) -> Tensor:
        batch = data.subset(random.sample(range(len(data.images)), ROWS * IMAGES_PER_ROW))
        labels = [batch.labels[row * IMAGES_PER_ROW : (row + 1) * IMAGES_PER_ROW] for row in range(ROWS)]
        rows, lengths = pad(list(map(document, labels)))
        return text_loss(model(rows, window_features(batch.images)), rows, lengths)

    return fit(model, loss_at, steps, "Flamingo")


def fit(model: Module, loss_at: Callable[[int], Tensor], steps: int, label: str) -> list[float]:
    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.95))
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label=label)


def generate_names(model: Flamingo, first: digits.Digits, second: list[list[int]]) -> list[str]:
    """Return the name generated for each second image, after a first image with its true name; greedily."""
    prompts = [[*document([label]), IMAGE] for label in first.labels]
    images = [image for pair in zip(first.images, second, strict=True) for image in pair]
    features, texts = window_features(images), [[] for _ in second]
    with no_grad():
        for _ in range(MAX_NAME_TOKENS):
            rows, lengths = pad([prompt + text for prompt, text in zip(prompts, texts, strict=True)])
            logits = model(rows, features)
            for text, length, row in zip(texts, lengths, logits.tolist(), strict=True):
                text.append(row[length - 1].index(max(row[length - 1])))
    names = [text[: text.index(END)] if END in text else text for text in texts]
    return ["".join(LETTERS[token_id - 2] if token_id > 1 else "?" for token_id in name) for name in names]


def accuracy(names: list[str], labels: list[int]) -> float:
    """Return the fraction of names that equal the name of their label in every letter."""
    return sum(name == NAMES[label] for name, label in zip(names, labels, strict=True)) / len(labels)


def run(
    *, text_steps: int = TEXT_STEPS, steps: int = STEPS, pairs: int = PAIRS, seed: int = 0
) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random, sizes = digits.load(), Random(seed), Sizes()
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    language_model = build_language_model(sizes, random)
    text_losses = train_on_text(language_model, text_steps, random)
    frozen = list(language_model.parameters().values())
    weights_before = [list(weight.data) for weight in frozen]
    freeze(language_model)
    model = build_flamingo(language_model, sizes, random)
    first, second, other = (held_out.subset(list(range(k * pairs, (k + 1) * pairs))) for k in range(3))

    # With gates at 0 the logits are those of the language model.
    rows, _ = pad([document([label, label]) for label in first.labels[:4]])
    with no_grad():
        text_logits, logits = language_model(language_model.embed(rows)), model(rows, window_features(first.images[:8]))
    blind_names = generate_names(model, first, second.images)
    losses = train_on_images(model, training, steps, random)
    names, other_names = (generate_names(model, first, images) for images in (second.images, other.images))
    gates = [value for layer in model.cross_attention_layers for value in layer.attention_gate.data]
    result = {
        "seed": seed,
        "steps": steps,
        "pairs": pairs,
        "parameters": sum(len(parameter.data) for parameter in model.parameters().values()),
        "unchanged_at_zero": text_logits.data == logits.data,
        "frozen_unchanged": [list(weight.data) for weight in frozen] == weights_before,
        "accuracy": accuracy(names, second.labels),
        "accuracy_of_others": accuracy(other_names, other.labels),
        "blind_accuracy": accuracy(blind_names, second.labels),
        "gate": sum(abs(math.tanh(value)) for value in gates) / len(gates),
        "seconds": time.perf_counter() - start,
        "losses": losses,
        "text_losses": text_losses,
    }
    with no_grad():
        maps = model.resampler.attention_maps(window_features(second.images[:1]))[-1].mean(1).tolist()[0]
    report(result, names[0], draw_attention(second.images[0], maps))
    return result


def report(result: dict, name: str, drawing: str) -> None:
    """Print the results of a run."""
    losses = result["losses"]
    print(f"\ngates at 0: logits equal the language model's to the last bit: {result['unchanged_at_zero']}")
    print(f"loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"frozen weights unchanged: {result['frozen_unchanged']}; mean |tanh(gate)|: {result['gate']:.2f}")
    print(f"\nheld out: {result['pairs']} pairs of digits; second digit named with every letter correct (chance 10 %)")
    print(f"  gates at 0 (blind)              {result['blind_accuracy']:6.1%}")
    print(f"  trained                         {result['accuracy']:6.1%}")
    print(f"  trained, other second images    {result['accuracy_of_others']:6.1%}   (of those images, same text)")
    print(f"  {result['parameters']:,} trained parameters, {result['seconds']:.0f} s")
    print(f"\na held-out digit, generated name “{name}”; right, the attention of each latent:\n{drawing}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train Flamingo on digits and their names in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="held-out digits and every random draw (default 0)")
    options = parser.parse_args()
    quick = {"text_steps": QUICK_TEXT_STEPS, "steps": QUICK_STEPS, "pairs": QUICK_PAIRS} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
