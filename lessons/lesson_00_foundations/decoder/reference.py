"""A Llama-style decoder in pure Python, which learns to write letter by letter.

Its parts are those of Llama 3 (arXiv:2407.21783, section 3.2): RMSNorm, rotary positions, grouped queries, SwiGLU. In a
minute, with nothing installed, it reads some thousand letters about the toy world and is measured on captions it never saw:

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
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sizes:
    """What fixes a decoder; the names are those of `shared.transformer.DecoderConfig`."""

    vocab_size: int
    width: int = 24
    depth: int = 2
    heads: int = 4
    kv_heads: int = 2
    mlp_dim: int = 48
    rotary_base: float = 10_000.0
    norm_eps: float = 1e-5


def rotate(x: Tensor, base: float = 10_000.0, start: int = 0) -> Tensor:
    """Turn queries or keys [batch, heads, tokens, head_dim] by their places, counted from `start` (arXiv:2104.09864, section 3.2.2).

    Pair i of a head is made of the numbers i and i + head_dim / 2, and turns by base^(−2i / head_dim) a place.
    """
    # exercise 0.41: rotary positions
    tokens, head_dim = x.shape[-2:]
    half = head_dim // 2
    angles = [(start + place) * base ** (-2 * i / head_dim) for place in range(tokens) for i in range(half)]
    cos = Tensor(list(map(math.cos, angles)), (tokens, half))
    sin = Tensor(list(map(math.sin, angles)), (tokens, half))
    first, second = x[:, :, :, :half], x[:, :, :, half:]
    # A point (first, second) of the plane, turned round the origin.
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    # end exercise


def grouped_causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What each token gathers from itself and those before it: [batch, heads, tokens, head_dim].

    query [batch, heads, tokens, head_dim]; key and value [batch, kv_heads, tokens, head_dim]. Neighboring heads share a key head
    (arXiv:2305.13245): with 4 heads and 2 key heads, heads 0 and 1 use the first, 2 and 3 the second.
    """
    # exercise 0.42: attention that looks back only, with shared keys
    batch, heads, tokens, head_dim = query.shape
    kv_heads = key.shape[1]
    query = query.reshape(batch, kv_heads, heads // kv_heads, tokens, head_dim)
    key, value = (x.reshape(batch, kv_heads, 1, tokens, head_dim) for x in (key, value))
    # What is to come gets −∞ before the softmax, and so no weight.
    mask = Tensor([0.0 if k <= q else -math.inf for q in range(tokens) for k in range(tokens)], (tokens, tokens))
    weights = softmax(query @ key.transpose() * (1.0 / math.sqrt(head_dim)) + mask)
    return (weights @ value).reshape(batch, heads, tokens, head_dim)
    # end exercise


class Attention(Module):
    """Queries, keys and values of every token; the first two turned by its place; no biases."""

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
        gathered = grouped_causal_attention(query, key, split(self.value(x), self.sizes.kv_heads))
        return self.output(gathered.permute(0, 2, 1, 3).reshape(batch, tokens, width))


class SwiGLU(Module):
    """Each token by itself: one matrix opens and closes what the other says (arXiv:2002.05202, eq. 6)."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.gate = Linear(width, mlp_dim, random, bias=False)
        self.up = Linear(width, mlp_dim, random, bias=False)
        self.down = Linear(mlp_dim, width, random, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(silu(self.gate(x)) * self.up(x))


class Block(Module):
    """Look back, then think; both add to what was there, and both look at a normed copy of it."""

    def __init__(self, sizes: Sizes, random: Random):
        self.attention_norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.attention = Attention(sizes, random)
        self.mlp_norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.mlp = SwiGLU(sizes.width, sizes.mlp_dim, random)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class Decoder(Module):
    """Token numbers, rows of equal length, → logits of the token after each, [batch, tokens, vocab]."""

    def __init__(self, sizes: Sizes, random: Random):
        self.embedding = Embedding(sizes.vocab_size, sizes.width, random)
        self.blocks = [Block(sizes, random) for _ in range(sizes.depth)]
        self.norm = RMSNorm(sizes.width, sizes.norm_eps)
        self.output = Linear(sizes.width, sizes.vocab_size, random, bias=False)

    def forward(self, rows: list[list[int]]) -> Tensor:
        x = self.embedding([token for row in rows for token in row])
        x = x.reshape(len(rows), len(rows[0]), x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.output(self.norm(x))


# ── Reading and writing ───────────────────────────────────────────────────────────────────────────────────────────────

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"
WINDOW = 32
"""Letters that the model sees at once."""
BATCH = 4
STEPS, QUICK_STEPS = 260, 20
LEARNING_RATE = 1e-2


def letters(split: str, seed: int, captions: int) -> list[int]:
    """Captions of a split of the toy world, a line each, as numbers of letters. None has a comma: two things at most."""
    lines = [caption(scene_at(split, seed, number, (1, 2)), "colours") for number in range(captions)]
    return [ALPHABET.index(letter) for letter in "".join(f"{line}\n" for line in lines)]


def loss_of(model: Decoder, windows: list[list[int]]) -> Tensor:
    """The mean surprise, in nats, at every letter of the windows after the first."""
    logits = model([window[:-1] for window in windows])
    targets = [letter for window in windows for letter in window[1:]]
    return cross_entropy(logits.reshape(len(targets), logits.shape[-1]), targets)


def bigram_bits(text: list[int], windows: list[list[int]]) -> float:
    """Bits a letter of a model that counts which letter follows which, one added to each count."""
    pairs, singles = Counter(pairwise(text)), Counter(text[:-1])
    surprises = [
        -math.log2((pairs[a, b] + 1) / (singles[a] + len(ALPHABET))) for window in windows for a, b in pairwise(window)
    ]
    return sum(surprises) / len(surprises)


def write(model: Decoder, start: str, count: int, random: Random, temperature: float = 0.7) -> str:
    """Go on after `start`, letter by letter, each drawn from the model's own probabilities, cooled a little."""
    numbers = [ALPHABET.index(letter) for letter in start]
    with no_grad():
        for _ in range(count):
            logits = model([numbers[-WINDOW:]])[0, -1]
            chances = softmax(logits * (1.0 / temperature)).tolist()
            numbers.append(random.choices(range(len(ALPHABET)), chances)[0])
    return "".join(ALPHABET[number] for number in numbers)


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on captions of seen combinations; print and return bits per letter on new ones, beside the bigram's."""
    start = time.perf_counter()
    random = Random(seed)
    text, new = letters("train", seed, 2000), letters("validation", seed, 40)
    windows = [new[at : at + WINDOW + 1] for at in range(0, len(new) - WINDOW, WINDOW)]
    model = Decoder(Sizes(len(ALPHABET)), random)

    def loss_at(step: int) -> Tensor:
        places = [random.randrange(len(text) - WINDOW) for _ in range(BATCH)]
        return loss_of(model, [text[at : at + WINDOW + 1] for at in places])

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=max(1, steps // 10))
    losses = train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label="decoder")
    with no_grad():
        bits = loss_of(model, windows).item() / math.log(2)
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "bits_per_byte": bits,
        "bigram_bits_per_byte": bigram_bits(text, windows),
        "losses": losses,
        "sample": write(model, "\n", 80, random).strip("\n"),
        "seconds": time.perf_counter() - start,
    }
    print(f"\nloss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nheld out: {len(windows) * WINDOW} letters of captions that it never saw; bits a letter (a byte each)")
    print(f"  any letter alike  {math.log2(len(ALPHABET)):6.2f}")
    print(f"  bigram counts     {result['bigram_bits_per_byte']:6.2f}")
    print(f"  decoder           {bits:6.2f}   ({result['parameters']:,} parameters, {result['seconds']:.0f} s)")
    print(f"\nit writes:\n{result['sample']}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a Llama-style decoder on letters in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less good")
    parser.add_argument("--seed", type=int, default=0, help="the text, and every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    main()
