"""A Llama-style decoder in pure Python, trained to predict text letter by letter.

Its parts are those of Llama 3 (arXiv:2407.21783, section 3.2): RMSNorm, rotary positions, grouped queries, SwiGLU. In a
minute it trains on several thousand letters of toy-world captions, and is measured on held-out captions:

    python -S -m lessons.lesson_00_foundations.decoder.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from random import Random

from data.toybox.heldout import scene_at
from data.toybox.language import caption
from shared.stdlib.autograd import no_grad
from shared.stdlib.functional import concatenate, cross_entropy, silu, softmax
from shared.stdlib.nn import Embedding, Linear, Module, RMSNorm
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sizes:
    """Sizes of a decoder; the names are those of `shared.transformer.DecoderConfig`."""

    vocab_size: int
    width: int = 24
    depth: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp_dim: int = 48
    rotary_base: float = 10_000.0
    norm_eps: float = 1e-5


def rotate(x: Tensor, base: float = 10_000.0, start: int = 0) -> Tensor:
    """Rotate queries or keys [batch, heads, tokens, head_dim] by their positions, counted from `start`.

    Pair i of a head holds the features i and i + head_dim / 2. It rotates by base^(−2i / head_dim) per position
    (arXiv:2104.09864, section 3.2.2).
    """
    # exercise 0.41: rotary positions
    tokens, head_dim = x.shape[-2:]
    half = head_dim // 2
    angles = [(start + position) * base ** (-2 * i / head_dim) for position in range(tokens) for i in range(half)]
    cos = Tensor(list(map(math.cos, angles)), (tokens, half))
    sin = Tensor(list(map(math.sin, angles)), (tokens, half))
    first, second = x[:, :, :, :half], x[:, :, :, half:]
    # The point (first, second) of a plane, rotated about the origin.
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    # end exercise


def grouped_causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute causal attention with grouped queries: each token attends to itself and to earlier tokens.

    query [batch, heads, tokens, head_dim], key and value [batch, kv_heads, tokens, head_dim] → like query. Neighboring
    heads share a key head (arXiv:2305.13245): with 4 heads and 2 key heads, heads 0 and 1 use the first, 2 and 3 the
    second.
    """
    # exercise 0.42: causal attention with shared keys
    batch, heads, tokens, head_dim = query.shape
    kv_heads = key.shape[1]
    query = query.reshape(batch, kv_heads, heads // kv_heads, tokens, head_dim)
    key, value = (x.reshape(batch, kv_heads, 1, tokens, head_dim) for x in (key, value))
    # Later tokens get a score of −∞, hence a weight of 0.
    mask = Tensor([0.0 if k <= q else -math.inf for q in range(tokens) for k in range(tokens)], (tokens, tokens))
    weights = softmax(query @ key.transpose() * (1.0 / math.sqrt(head_dim)) + mask)
    return (weights @ value).reshape(batch, heads, tokens, head_dim)
    # end exercise


class Attention(Module):
    """Multi-head attention with rotary positions and grouped queries, without biases."""

    def __init__(self, sizes: Sizes, random: Random):
        head_dim = sizes.width // sizes.heads
        self.sizes = sizes
        self.query = Linear(sizes.width, sizes.width, random, bias=False)
        self.key = Linear(sizes.width, sizes.kv_heads * head_dim, random, bias=False)
        self.value = Linear(sizes.width, sizes.kv_heads * head_dim, random, bias=False)
        self.output = Linear(sizes.width, sizes.width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.reshape(batch, tokens, heads, width // self.sizes.heads).permute(0, 2, 1, 3)

        query = rotate(split(self.query(x), self.sizes.heads), self.sizes.rotary_base)
        key = rotate(split(self.key(x), self.sizes.kv_heads), self.sizes.rotary_base)
        attended = grouped_causal_attention(query, key, split(self.value(x), self.sizes.kv_heads))
        return self.output(attended.permute(0, 2, 1, 3).reshape(batch, tokens, width))


class SwiGLU(Module):
    """An MLP whose hidden layer is multiplied by a learned gate (arXiv:2002.05202, eq. 6)."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.gate = Linear(width, mlp_dim, random, bias=False)
        self.up = Linear(width, mlp_dim, random, bias=False)
        self.down = Linear(mlp_dim, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(Module):
    """Attention, then an MLP, each on normalized input and added to the residual stream (pre-norm)."""

    def __init__(self, sizes: Sizes, random: Random):
        self.attention_norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.attention = Attention(sizes, random)
        self.mlp_norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.mlp = SwiGLU(sizes.width, sizes.mlp_dim, random)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(Module):
    """Predict the next token after each token: rows of token ids of equal length → logits [batch, tokens, vocab]."""

    def __init__(self, sizes: Sizes, random: Random):
        self.embedding = Embedding(sizes.vocab_size, sizes.width, random)
        self.blocks = [Block(sizes, random) for _ in range(sizes.depth)]
        self.norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.output = Linear(sizes.width, sizes.vocab_size, random, bias=False)

    def forward(self, rows: list[list[int]]) -> Tensor:
        x = self.embedding([token_id for row in rows for token_id in row])
        x = x.reshape(len(rows), len(rows[0]), x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


# ── Data, loss and baseline ───────────────────────────────────────────────────────────────────────────────────────────

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"
WINDOW = 32
"""Number of letters in the context."""
BATCH = 4
STEPS, QUICK_STEPS = 260, 20
LEARNING_RATE = 1e-2


def encode_captions(split: str, seed: int, captions: int) -> list[int]:
    """Return captions of a toy-world split, one per line, as token ids of letters.

    Scenes have at most two objects, so no caption has a comma.
    """
    lines = [caption(scene_at(split, seed, number, (1, 2)), "colors") for number in range(captions)]
    return [ALPHABET.index(letter) for letter in "".join(f"{line}\n" for line in lines)]


def next_letter_loss(model: Decoder, windows: list[list[int]]) -> Tensor:
    """Return the mean cross-entropy, in nats, of every letter of the windows after the first."""
    logits = model([window[:-1] for window in windows])
    targets = [token_id for window in windows for token_id in window[1:]]
    return cross_entropy(logits.reshape(len(targets), logits.shape[-1]), targets)


def bigram_bits(text: list[int], windows: list[list[int]]) -> float:
    """Return the bits per letter of a bigram model: counts of pairs of letters in `text`, each plus one."""
    pairs, singles = Counter(pairwise(text)), Counter(text[:-1])
    bits = [
        -math.log2((pairs[a, b] + 1) / (singles[a] + len(ALPHABET))) for window in windows for a, b in pairwise(window)
    ]
    return sum(bits) / len(bits)


# ── Training and generation ───────────────────────────────────────────────────────────────────────────────────────────


def generate_text(model: Decoder, start: str, count: int, random: Random, temperature: float = 0.7) -> str:
    """Continue `start` by `count` letters, sampled from the model's distribution at a temperature."""
    token_ids = [ALPHABET.index(letter) for letter in start]
    with no_grad():
        for _ in range(count):
            logits = model([token_ids[-WINDOW:]])[0, -1]
            probabilities = softmax(logits * (1.0 / temperature)).tolist()
            token_ids.append(random.choices(range(len(ALPHABET)), probabilities)[0])
    return "".join(ALPHABET[token_id] for token_id in token_ids)


def fit(model: Decoder, text: list[int], steps: int, random: Random) -> list[float]:
    """Train the decoder on random windows of a text; return the loss at each step."""

    def loss_at(step: int) -> Tensor:
        starts = [random.randrange(len(text) - WINDOW) for _ in range(BATCH)]
        return next_letter_loss(model, [text[start : start + WINDOW + 1] for start in starts])

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=max(1, steps // 10))
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="decoder")


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float] | str]:
    """Train on captions of seen combinations; print and return bits per letter on new captions, and the bigram's."""
    start = time.perf_counter()
    random = Random(seed)
    text, new_text = encode_captions("train", seed, 2000), encode_captions("validation", seed, 40)
    windows = [new_text[first : first + WINDOW + 1] for first in range(0, len(new_text) - WINDOW, WINDOW)]
    model = Decoder(Sizes(len(ALPHABET)), random)
    losses = fit(model, text, steps, random)
    with no_grad():
        bits = next_letter_loss(model, windows).item() / math.log(2)
    baseline, sample = bigram_bits(text, windows), generate_text(model, "\n", 80, random).strip("\n")
    parameters, seconds = sum(len(tensor.data) for tensor in model.parameters().values()), time.perf_counter() - start
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nbits per letter (one byte each) on {len(windows) * WINDOW} letters of held-out captions")
    print(f"  uniform           {math.log2(len(ALPHABET)):6.2f}")
    print(f"  bigram counts     {baseline:6.2f}")
    print(f"  decoder           {bits:6.2f}   ({parameters:,} parameters, {seconds:.0f} s)")
    print(f"\ngenerated text:\n{sample}")
    return {
        "seed": seed,
        "steps": steps,
        "parameters": parameters,
        "bits_per_byte": bits,
        "bigram_bits_per_byte": baseline,
        "losses": losses,
        "sample": sample,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Llama-style decoder on letters in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the text and of every random draw")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
