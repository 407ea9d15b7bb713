"""Sparse experts and latent attention in pure Python, beside their papers.

Two language models predict captions of the toy world letter by letter. The dense one is a small Llama; the sparse one
is a small Mixtral (arXiv:2401.04088): a router sends each letter to two of several experts. Both compute equally much
per letter. Then multi-head latent attention (arXiv:2405.04434) is computed in its two forms, which are equal:

    python -S -m lessons.lesson_07_recipes.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from collections import Counter
from functools import partial
from random import Random

from data.toybox.heldout import scene_at
from data.toybox.language import caption
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal
from shared.stdlib.decoder import Decoder, SwiGLU, rotate
from shared.stdlib.functional import concatenate, cross_entropy, embedding, linear, rms_norm, softmax
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import AdamW, warmup_cosine
from shared.stdlib.output import run_program
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor
from shared.stdlib.training import train

# ── Sparse experts (arXiv:2401.04088, section 2.1) ────────────────────────────────────────────────────────────────────


def choose_experts(logits: Tensor, chosen: int) -> tuple[Tensor, list[list[int]]]:
    """Return the weights [tokens, chosen] and the indices of each token's experts, from logits [tokens, experts].

    The experts with the largest logits are chosen; their weights are the softmax over these logits only.
    """
    tokens, experts = logits.shape
    indices = [sorted(range(experts), key=lambda expert: -row[expert])[:chosen] for row in logits.tolist()]
    flat = [token * experts + expert for token, row in enumerate(indices) for expert in row]
    return softmax(embedding(flat, logits.reshape(tokens * experts, 1)).reshape(tokens, chosen)), indices


def balance_loss(logits: Tensor, indices: list[list[int]]) -> Tensor:
    """Return n · Σᵢ fᵢ Pᵢ (arXiv:2101.03961, eq. 4), from logits [tokens, experts] and the chosen experts.

    fᵢ counts how often expert i is chosen per token, and Pᵢ is its mean probability. The counts have no gradient; the
    loss lowers the probability of experts that are chosen often.
    """
    tokens, experts = logits.shape
    counts = Counter(expert for row in indices for expert in row)
    fractions = Tensor([counts[expert] / tokens for expert in range(experts)], (experts,))
    return (fractions * softmax(logits).mean(axis=0)).sum() * float(experts)


class SparseMLP(Module):
    """A router and `experts` SwiGLU MLPs, of which each token passes through `chosen`.

    `routing` holds the logits and the indices of the last forward pass.
    """

    def __init__(self, width: int, mlp_dim: int, experts: int, chosen: int, random: Random):
        self.router = Linear(width, experts, random, bias=False)
        self.experts = [SwiGLU(width, mlp_dim, random) for _ in range(experts)]
        self.chosen = chosen

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts: [batch, tokens, width] → the same shape."""
        batch, length, width = x.shape
        rows = x.reshape(batch * length, width)
        logits = self.router(rows)
        weights, indices = choose_experts(logits, self.chosen)
        self.routing = logits, indices
        outputs, row_of = [], {}
        for number, expert in enumerate(self.experts):
            tokens = [token for token, row in enumerate(indices) if number in row]
            if tokens:
                row_of |= {(token, number): len(row_of) + place for place, token in enumerate(tokens)}
                outputs.append(expert(embedding(tokens, rows)))
        order = [row_of[token, number] for token, row in enumerate(indices) for number in row]
        updates = embedding(order, concatenate(outputs)).reshape(batch * length, self.chosen, width)
        return (updates * weights.reshape(batch * length, self.chosen, 1)).sum(axis=1).reshape(batch, length, width)


def sparse_decoder(sizes: tuple[int, int, int, int, int], experts: int, chosen: int, random: Random) -> Decoder:
    """Return a decoder with experts in place of every MLP; `sizes` are those of `Decoder`, the last of one expert."""
    decoder = Decoder(*sizes, random)
    for block in decoder.blocks:
        block.mlp = SparseMLP(sizes[1], sizes[4], experts, chosen, random)
    return decoder


def routings(model: Decoder) -> list[tuple[Tensor, list[list[int]]]]:
    """Return the routing of every sparse layer in the last forward pass; none for a dense model."""
    return [block.mlp.routing for block in model.blocks if isinstance(block.mlp, SparseMLP)]


# ── Multi-head latent attention (arXiv:2405.04434, section 2.1; arXiv:2412.19437, eq. 1–11) ───────────────────────────


def latent_keys_and_values(
    x: Tensor, down: Tensor, norm: Tensor, up: Tensor, heads: int, head_dim: int
) -> tuple[Tensor, Tensor]:
    """Compress each token of `x` [batch, tokens, width] into a latent and expand it into every head's key and value.

    down  [latent_dim + rotary_dim, width]: its first rows give the latent, its last ones a key that is rotated
    norm  [latent_dim], the weight of the RMSNorm of the latent
    up    [heads · (head_dim + value_dim), latent_dim]: per head, the rows of its key, then those of its value

    Returns keys [batch, heads, tokens, head_dim + rotary_dim], of which the rotated part is the same in all heads, and
    values [batch, heads, tokens, value_dim].
    """
    # exercise 7.4: compress into a latent, expand into keys and values
    batch, tokens, _ = x.shape
    latent_dim, rotary_dim = norm.shape[0], down.shape[0] - norm.shape[0]
    compressed = linear(x, down)
    latents = rms_norm(compressed[:, :, :latent_dim], norm)
    rotary_keys = rotate(compressed[:, :, latent_dim:].reshape(batch, 1, tokens, rotary_dim))
    expanded = linear(latents, up).reshape(batch, tokens, heads, up.shape[0] // heads).permute(0, 2, 1, 3)
    shared = rotary_keys.expand(batch, heads, tokens, rotary_dim)
    return concatenate([expanded[:, :, :, :head_dim], shared], axis=-1), expanded[:, :, :, head_dim:]
    # end exercise


def causal_mask(tokens: int) -> Tensor:
    """Return what is added to the scores [tokens, tokens]: −∞ for later tokens."""
    return Tensor([0.0 if k <= q else -math.inf for q in range(tokens) for k in range(tokens)], (tokens, tokens))


def plain_attention(queries: Tensor, x: Tensor, down: Tensor, norm: Tensor, up: Tensor, head_dim: int) -> Tensor:
    """Return what each query gathers [batch, heads, tokens, value_dim] from the keys and values of all heads."""
    keys, values = latent_keys_and_values(x, down, norm, up, queries.shape[1], head_dim)
    scores = queries @ keys.transpose() * queries.shape[-1] ** -0.5
    return softmax(scores + causal_mask(x.shape[1])) @ values


def absorbed_attention(queries: Tensor, x: Tensor, down: Tensor, norm: Tensor, up: Tensor, head_dim: int) -> Tensor:
    """Return the same without any key or value: qᵀ (K c) = (Kᵀ q)ᵀ c, and Σ pⱼ (V cⱼ) = V Σ pⱼ cⱼ.

    Only the latents c and the rotated keys are needed of earlier tokens, so a cache holds nothing else.
    """
    batch, heads, tokens, query_dim = queries.shape
    latent_dim, rotary_dim = norm.shape[0], query_dim - head_dim
    compressed = linear(x, down)
    latents = rms_norm(compressed[:, :, :latent_dim], norm).reshape(batch, 1, tokens, latent_dim)
    rotary_keys = rotate(compressed[:, :, latent_dim:].reshape(batch, 1, tokens, rotary_dim))
    up = up.reshape(heads, up.shape[0] // heads, latent_dim)
    scores = queries[:, :, :, :head_dim] @ up[:, :head_dim] @ latents.transpose()
    scores = (scores + queries[:, :, :, head_dim:] @ rotary_keys.transpose()) * query_dim**-0.5
    return softmax(scores + causal_mask(tokens)) @ latents @ up[:, head_dim:].transpose()


class LatentAttention(Module):
    """Causal self-attention whose keys and values are expanded from one latent per token; queries have no latent."""

    def __init__(self, width: int, heads: int, dims: tuple[int, int, int, int], random: Random):
        """`dims` are head_dim, rotary_dim, value_dim and latent_dim."""
        head_dim, rotary_dim, value_dim, latent_dim = dims
        self.heads, self.head_dim, self.rotary_dim = heads, head_dim, rotary_dim
        self.query = Linear(width, heads * (head_dim + rotary_dim), random, bias=False)
        self.down = normal((latent_dim + rotary_dim, width), width**-0.5, random, requires_grad=True)
        self.latent_norm = full((latent_dim,), 1.0, requires_grad=True)
        self.up = normal((heads * (head_dim + value_dim), latent_dim), latent_dim**-0.5, random, requires_grad=True)
        self.output = Linear(heads * value_dim, width, random, bias=False)

    def forward(self, x: Tensor, absorbed: bool = False) -> Tensor:
        batch, tokens, _ = x.shape
        queries = self.query(x).reshape(batch, tokens, self.heads, self.head_dim + self.rotary_dim).permute(0, 2, 1, 3)
        plain, rotary = queries[:, :, :, : self.head_dim], queries[:, :, :, self.head_dim :]
        queries = concatenate([plain, rotate(rotary)], axis=-1)
        attention = absorbed_attention if absorbed else plain_attention
        gathered = attention(queries, x, self.down, self.latent_norm, self.up, self.head_dim)
        return self.output(gathered.permute(0, 2, 1, 3).reshape(batch, tokens, self.heads * gathered.shape[-1]))


# ── Data, loss, training ──────────────────────────────────────────────────────────────────────────────────────────────

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz"
WINDOW, BATCH = 24, 6
WIDTH, DEPTH, HEADS = 16, 2, 2
EXPERTS, CHOSEN, EXPERT_DIM = 6, 2, 16
STEPS, QUICK_STEPS = 120, 8
LEARNING_RATE = 1e-2
BALANCE_WEIGHT = 0.02


def encode_captions(split: str, seed: int, captions: int) -> list[int]:
    """Return captions of a toy-world split, one per line, as token ids of letters; no caption has a comma."""
    lines = [caption(scene_at(split, seed, number, (1, 2)), "colors") for number in range(captions)]
    return [ALPHABET.index(letter) for letter in "".join(f"{line}\n" for line in lines)]


def next_letter_loss(model: Decoder, windows: list[list[int]]) -> Tensor:
    """Return the mean cross-entropy, in nats, of every letter of the windows after the first."""
    logits = model(model.embed([window[:-1] for window in windows]))
    targets = [token_id for window in windows for token_id in window[1:]]
    return cross_entropy(logits.reshape(len(targets), logits.shape[-1]), targets)


def fit(model: Decoder, text: list[int], steps: int, seed: int, label: str) -> list[float]:
    """Train a decoder on random windows of a text, with its experts' balance loss; return the loss at each step."""
    random = Random(seed)

    def loss_at(step: int) -> Tensor:
        starts = [random.randrange(len(text) - WINDOW) for _ in range(BATCH)]
        loss = next_letter_loss(model, [text[start : start + WINDOW + 1] for start in starts])
        for logits, indices in routings(model):
            loss = loss + balance_loss(logits, indices) * BALANCE_WEIGHT
        return loss

    optimizer = AdamW(model.parameters().values(), LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.05)
    schedule = partial(warmup_cosine, steps=steps, warmup_steps=max(1, steps // 10))
    return train(model, loss_at, optimizer, steps, schedule=schedule, clip_norm=1.0, label=label)


def evaluate(model: Decoder, windows: list[list[int]]) -> tuple[float, list[float]]:
    """Return the bits per letter of the windows, and how often each expert of the last layer is chosen (sum 1)."""
    with no_grad():
        bits = next_letter_loss(model, windows).item() / math.log(2)
    chosen = Counter(expert for _, indices in routings(model)[-1:] for row in indices for expert in row)
    return bits, [chosen[expert] / sum(chosen.values()) for expert in range(EXPERTS if chosen else 0)]


def active_parameters(model: Decoder) -> tuple[int, int]:
    """Return the number of parameters that are used per letter, and of all parameters."""
    total = sum(len(parameter.data) for parameter in model.parameters().values())
    idle = sum(
        sum(len(parameter.data) for parameter in expert.parameters().values())
        for block in model.blocks
        if isinstance(block.mlp, SparseMLP)
        for expert in block.mlp.experts[block.mlp.chosen :]
    )
    return total - idle, total


def largest_difference(seed: int) -> tuple[float, int, int]:
    """Compare the two forms of latent attention; also return the numbers cached per token, without and with latents."""
    heads, dims = 4, (8, 4, 8, 6)
    attention, random = LatentAttention(WIDTH, heads, dims, Random(seed)), Random(seed)
    x = normal((1, 12, WIDTH), 1.0, random)
    with no_grad():
        plain, absorbed = attention(x), attention(x, absorbed=True)
    difference = max(abs(one - other) for one, other in zip(plain.data, absorbed.data, strict=True))
    head_dim, rotary_dim, value_dim, latent_dim = dims
    return difference, heads * (head_dim + rotary_dim + value_dim), latent_dim + rotary_dim


def run(*, steps: int = STEPS, seed: int = 0) -> dict:
    """Train both models on captions of seen combinations; print and return measurements on new captions."""
    start = time.perf_counter()
    text, new_text = encode_captions("train", seed, 2000), encode_captions("validation", seed, 30)
    windows = [new_text[first : first + WINDOW + 1] for first in range(0, len(new_text) - WINDOW, WINDOW)]
    models = {
        "dense": Decoder(len(ALPHABET), WIDTH, DEPTH, HEADS, CHOSEN * EXPERT_DIM, Random(seed)),
        "sparse": sparse_decoder((len(ALPHABET), WIDTH, DEPTH, HEADS, EXPERT_DIM), EXPERTS, CHOSEN, Random(seed)),
    }
    result: dict = {"seed": seed, "steps": steps}
    for name, model in models.items():
        losses = fit(model, text, steps, seed, name)
        bits, use = evaluate(model, windows)
        active, total = active_parameters(model)
        result[name] = {"losses": losses, "bits_per_byte": bits, "use": use, "active": active, "total": total}
    result["difference"], result["cached"], result["cached_latent"] = largest_difference(seed)
    result["seconds"] = time.perf_counter() - start
    report(result, len(windows) * WINDOW)
    return result


def report(result: dict, letters: int) -> None:
    """Print the losses, the bits per letter, the use of the experts, and the two forms of latent attention."""
    for name in ("dense", "sparse"):
        losses = result[name]["losses"]
        print(f"{name:7} loss  {sparkline(losses)}  {losses[0]:.2f} → {losses[-1]:.2f}")
    print(f"\nbits per letter (one byte each) on {letters:,} letters of held-out captions")
    print(f"  uniform   {math.log2(len(ALPHABET)):6.2f}")
    for name in ("dense", "sparse"):
        values = result[name]
        sizes = f"{values['active']:,} parameters per letter, {values['total']:,} in all"
        print(f"  {name:9} {values['bits_per_byte']:6.2f}   ({sizes})")
    use = " ".join(f"{fraction:.0%}" for fraction in result["sparse"]["use"])
    print(f"  use of the {EXPERTS} experts in the last layer: {use} (equal: {1 / EXPERTS:.0%})")
    print("\nlatent attention: absorbed and plain form")
    print(f"  largest difference of the outputs   {result['difference']:.1e}")
    cached = f"{result['cached_latent']} per token and layer, keys and values {result['cached']}"
    print(f"  cached numbers                      {cached}")
    print(f"\n{result['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train dense and sparse language models on letters in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}, less accurate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the text and of every random draw")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
