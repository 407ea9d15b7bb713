"""Qwen2-VL in pure Python: 2 × 2 merging, window order, M-RoPE, and boxes as text (arXiv:2409.12191, 2502.13923).

Videos of handwritten digits, two side by side in each frame, become merged tokens with a time, a row and a column id.
A small causal transformer with M-RoPE reads the video and a question, and names the digit on one side of one frame:

    python -S -m lessons.lesson_09_qwen_vl.reference [--quick] [--seed N]
"""

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import tensor
from shared.stdlib.functional import attention, concatenate, cross_entropy, gelu
from shared.stdlib.nn import MLP, Embedding, LayerNorm, Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

Ids = tuple[int, int, int]

# ── Patches, in merge order (arXiv:2409.12191, section 2.1) ───────────────────────────────────────────────────────────


def cut_into_patches(frames: Tensor, patch_size: int, merge_size: int) -> Tensor:
    """Cut gray frames [frames, height, width] into patches [patches, patch_size²]; those of a token are neighbors.

    Raises ValueError when a side is not a multiple of `patch_size · merge_size`.
    """
    count, height, width = frames.shape
    side = patch_size * merge_size
    if height % side or width % side:
        raise ValueError(f"a frame of {height}×{width} pixels does not divide into tokens of {side}×{side} pixels")
    blocks = frames.reshape(count, height // side, merge_size, patch_size, width // side, merge_size, patch_size)
    return blocks.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, patch_size * patch_size)


def merge_patches(patches: Tensor, merge_size: int) -> Tensor:
    """Concatenate the vectors of each token's patches: [patches, width] → [tokens, merge_size² · width]."""
    return patches.reshape(-1, merge_size * merge_size * patches.shape[-1])


def window_order(rows: int, columns: int, side: int) -> list[int]:
    """Return the tokens of a grid in the order of windows of side × side tokens (arXiv:2502.13923, section 2.1.1)."""
    return sorted(range(rows * columns), key=lambda token: (token // columns // side, token % columns // side))


# ── M-RoPE (arXiv:2409.12191, section 2.1) ────────────────────────────────────────────────────────────────────────────


class Grid(NamedTuple):
    """The merged tokens of an image or a video; `time_step` is the distance of two frames in time ids."""

    frames: int
    rows: int
    columns: int
    time_step: float = 1.0


def mrope_ids(parts: Sequence[int | Grid]) -> list[Ids]:
    """Return time, row and column ids of a sequence of texts (their numbers of tokens) and grids.

    Each part starts one after the largest id of the parts before it.
    """
    ids: list[Ids] = []
    start = 0
    for part in parts:
        if isinstance(part, Grid):
            block = [
                (math.floor(frame * part.time_step), row, column)
                for frame in range(part.frames)
                for row in range(part.rows)
                for column in range(part.columns)
            ]
        else:
            block = [(place, place, place) for place in range(part)]
        ids += [(start + frame, start + row, start + column) for frame, row, column in block]
        start = 1 + max((max(each) for each in ids), default=-1)
    return ids


def rotate(x: Tensor, ids: Sequence[Ids], sections: Sequence[int], base: float = 10_000.0) -> Tensor:
    """Rotate the pairs of every head by M-RoPE: x [batch, heads, tokens, head_dim], one triple of ids per token.

    Pair i holds the elements i and i + head_dim/2. The first sections[0] pairs rotate with the time id, the next
    sections[1] with the row id, the rest with the column id, each by id · base^(−2i / head_dim).
    """
    # exercise 9.13: rotate by three ids
    pairs = x.shape[-1] // 2
    axes = [axis for axis, count in enumerate(sections) for _ in range(count)]
    angles = [each[axes[pair]] * base ** (-pair / pairs) for each in ids for pair in range(pairs)]
    shape = (1, 1, len(ids), pairs)
    cos, sin = Tensor(list(map(math.cos, angles)), shape), Tensor(list(map(math.sin, angles)), shape)
    first, second = x[:, :, :, :pairs], x[:, :, :, pairs:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    # end exercise


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sizes(NamedTuple):
    """Sizes of a model; `vocab` counts questions and answers."""

    patch_size: int = 4
    merge_size: int = 2
    vision_width: int = 8
    width: int = 24
    depth: int = 1
    heads: int = 2
    mlp_dim: int = 48
    sections: tuple[int, int, int] = (3, 1, 2)
    vocab: int = 18
    base: float = 30.0


class Merger(Module):
    """LayerNorm, concatenation of 2 × 2 patches, and a two-layer MLP."""

    def __init__(self, sizes: Sizes, random: Random):
        merged = sizes.vision_width * sizes.merge_size**2
        self.norm = LayerNorm(sizes.vision_width)
        self.up, self.down = Linear(merged, merged, random), Linear(merged, sizes.width, random)
        self.merge_size = sizes.merge_size

    def forward(self, patches: Tensor) -> Tensor:
        return self.down(gelu(self.up(merge_patches(self.norm(patches), self.merge_size))))


class Attention(Module):
    """Causal multi-head attention with M-RoPE: x [batch, tokens, width] → the same shape."""

    def __init__(self, sizes: Sizes, random: Random):
        width = sizes.width
        self.query, self.key, self.value = (Linear(width, width, random) for _ in range(3))
        self.output = Linear(width, width, random, bias=False)
        self.sizes = sizes

    def forward(self, x: Tensor, ids: Sequence[Ids], mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = (batch, tokens, self.sizes.heads, width // self.sizes.heads)
        query, key, value = (
            layer(x).reshape(*heads).permute(0, 2, 1, 3) for layer in (self.query, self.key, self.value)
        )
        query, key = (rotate(each, ids, self.sizes.sections, self.sizes.base) for each in (query, key))
        return self.output(attention(query, key, value, mask).permute(0, 2, 1, 3).reshape(batch, tokens, width))


class Block(Module):
    """Attention, then an MLP, each after a LayerNorm and with a residual connection."""

    def __init__(self, sizes: Sizes, random: Random):
        self.attention_norm, self.mlp_norm = LayerNorm(sizes.width), LayerNorm(sizes.width)
        self.attention, self.mlp = Attention(sizes, random), MLP(sizes.width, sizes.mlp_dim, random)

    def forward(self, x: Tensor, ids: Sequence[Ids], mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), ids, mask)
        return x + self.mlp(self.mlp_norm(x))


class QwenVL(Module):
    """Videos [batch, frames, height, width] and token ids [batch][tokens] → logits of the last token [batch, vocab]."""

    def __init__(self, sizes: Sizes, random: Random):
        self.patch_embedding = Linear(sizes.patch_size**2, sizes.vision_width, random, bias=False)
        self.merger = Merger(sizes, random)
        self.embedding = Embedding(sizes.vocab, sizes.width, random)
        self.blocks = [Block(sizes, random) for _ in range(sizes.depth)]
        self.norm = LayerNorm(sizes.width)
        self.output = Linear(sizes.width, sizes.vocab, random, bias=False)
        self.sizes = sizes

    def forward(self, videos: Tensor, token_ids: Sequence[Sequence[int]], ids: Sequence[Ids] | None = None) -> Tensor:
        """Return logits; `ids` replaces the M-RoPE ids of the video and the text."""
        batch, frames, height, width = videos.shape
        sizes = self.sizes
        side = sizes.patch_size * sizes.merge_size
        patches = cut_into_patches(videos.reshape(batch * frames, height, width), sizes.patch_size, sizes.merge_size)
        visual = self.merger(self.patch_embedding(patches)).reshape(batch, -1, sizes.width)
        text = self.embedding([token for row in token_ids for token in row]).reshape(batch, -1, sizes.width)
        x = concatenate([visual, text], axis=1)
        ids = ids or mrope_ids([Grid(frames, height // side, width // side), len(token_ids[0])])
        mask = causal_mask(len(ids))
        for block in self.blocks:
            x = block(x, ids, mask)
        return self.output(self.norm(x[:, -1]))


def causal_mask(tokens: int) -> Tensor:
    """Return the mask [tokens, tokens]: 0 for earlier tokens and the token itself, −∞ for later ones."""
    return Tensor(
        [0.0 if key <= query else -math.inf for query in range(tokens) for key in range(tokens)], (tokens,) * 2
    )


# ── Boxes as text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_boxes(text: str, height: int, width: int) -> list[tuple[str, tuple[float, ...]]]:
    """Return the named boxes in a text of a model; never raises. Boxes without four numbers or area are left out."""
    number = r"([-+]?\d+(?:\.\d*)?)"
    boxes = []
    for match in re.finditer(r'\{(?:[^{}"]|"(?:[^"\\\n]|\\.)*"?)*\}?', text, flags=re.ASCII | re.DOTALL):
        corners = re.search(r'"bbox_2d"\s*:\s*\[\s*' + r"\s*,\s*".join([number] * 4) + r"\s*,?\s*\]", match[0])
        label = re.search(r'"label"\s*:\s*("(?:[^"\\\n]|\\.)*")', match[0])
        if corners is None:
            continue
        left, top, right, bottom = map(float, corners.groups())
        x1, x2 = sorted(min(max(x, 0.0), width) for x in (left, right))
        y1, y2 = sorted(min(max(y, 0.0), height) for y in (top, bottom))
        if x1 < x2 and y1 < y2:
            try:
                boxes.append((json.loads(label[1]) if label else "", (x1, y1, x2, y2)))
            except ValueError:
                boxes.append((label[1][1:-1] if label else "", (x1, y1, x2, y2)))
    return boxes


# ── Videos of digits, and training ────────────────────────────────────────────────────────────────────────────────────

FRAMES, COLUMNS = 2, 2
QUESTIONS = digits.CLASSES  # token ids of the questions follow those of the answers, the ten digits
BATCH, STEPS, QUICK_STEPS = 16, 380, 15
LEARNING_RATE = 1e-2
HELD_OUT = 200


class Example(NamedTuple):
    """A video as flat pixels, the question about one of its digits, and the answer."""

    pixels: list[float]
    question: int
    answer: int


def random_example(data: digits.Digits, random: Random) -> Example:
    """Put a random digit at each side of each frame; ask for one of them."""
    chosen = data.subset(random.sample(range(len(data.images)), FRAMES * COLUMNS))
    side, pixels = digits.SIDE, []
    for frame in range(FRAMES):
        images = chosen.images[frame * COLUMNS : (frame + 1) * COLUMNS]
        for row in range(side):
            pixels += [p / digits.MAX_PIXEL for image in images for p in image[row * side : (row + 1) * side]]
    place = random.randrange(FRAMES * COLUMNS)
    return Example(pixels, QUESTIONS + place, chosen.labels[place])


def logits_of(model: QwenVL, examples: Sequence[Example]) -> Tensor:
    """Return the logits of the answers [examples, vocab]."""
    pixels = [pixel for example in examples for pixel in example.pixels]
    videos = Tensor(pixels, (len(examples), FRAMES, digits.SIDE, COLUMNS * digits.SIDE))
    return model(videos, [[example.question] for example in examples])


def fit(model: QwenVL, training: digits.Digits, steps: int, random: Random) -> list[float]:
    """Train the model on new random videos in each step and return the losses."""

    def loss_at(step: int) -> Tensor:
        examples = [random_example(training, random) for _ in range(BATCH)]
        return cross_entropy(logits_of(model, examples), [example.answer for example in examples])

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.02)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=steps // 10)
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="Qwen-VL")


def run(*, steps: int = STEPS, held_out_videos: int = HELD_OUT, seed: int = 0) -> dict:
    """Train on four fifths of the digits; print and return measurements on videos of the other fifth."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(indices) for indices in digits.train_test_split(len(data.images), 0.2, seed))
    model = QwenVL(Sizes(), random)
    losses = fit(model, training, steps, random)
    examples = [random_example(held_out, random) for _ in range(held_out_videos)]
    # The same videos with another question: the answer must follow the question.
    others = [example._replace(question=QUESTIONS + (example.question - QUESTIONS + 1) % 4) for example in examples]
    with no_grad():
        predictions, changed = (
            [row.index(max(row)) for row in logits_of(model, each).tolist()] for each in (examples, others)
        )
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(weight.data) for weight in model.parameters().values()),
        "accuracy": _fraction(predictions, examples),
        "accuracy_for_another_question": _fraction(changed, examples),
        "losses": losses,
        "seconds": time.perf_counter() - start,
    }
    report(result, examples[0], predictions[0])
    return result


def _fraction(predictions: Sequence[int], examples: Sequence[Example]) -> float:
    pairs = zip(predictions, examples, strict=True)
    return sum(prediction == example.answer for prediction, example in pairs) / len(examples)


def report(result: dict, example: Example, prediction: int) -> None:
    """Print the losses, the accuracies, the ids and one video."""
    losses, grid = result["losses"], Grid(FRAMES, 1, COLUMNS)
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"time, row and column ids of the video and the question: {mrope_ids([grid, 1])}")
    print(f"answers about held-out digits: {result['accuracy']:.0%} correct; chance is 10%")
    print(
        f"the same answers, with a question about another digit: {result['accuracy_for_another_question']:.0%} correct"
    )
    print(f"  {result['parameters']:,} parameters, {result['seconds']:.0f} s")
    frame, side = divmod(example.question - QUESTIONS, COLUMNS)
    place = f"frame {frame + 1}, {('left', 'right')[side]}"
    print(f"\na video of {FRAMES} frames; the digit in {place} is {example.answer}, predicted {prediction}")
    rows = tensor(example.pixels).reshape(FRAMES * digits.SIDE, -1).tolist()
    print("\n".join("  " + line for line in ascii_image(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small Qwen-VL on videos of digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and of every random draw (default 0)")
    options = parser.parse_args()
    quick = {"steps": QUICK_STEPS, "held_out_videos": 40} if options.quick else {}
    run(**quick, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
