"""A variational autoencoder in pure Python, beside its paper (Kingma & Welling, arXiv:1312.6114).

A network that writes: from a few random numbers, an image that nobody has drawn. It trains on real digits in under a minute,
with nothing installed, and prints what it costs to say a held-out digit, and some digits of its own:

    python -S -m lessons.lesson_00_foundations.vae.reference [--quick] [--seed N]
"""

import argparse
import math
import time
from functools import partial
from operator import add
from random import Random
from statistics import fmean

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.autograd import Gradients, no_grad
from shared.stdlib.creation import normal
from shared.stdlib.functional import sigmoid
from shared.stdlib.nn import Linear, Module
from shared.stdlib.optim import Adam, warmup_cosine
from shared.stdlib.shapes import rows_of
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor, record_operation
from shared.stdlib.training import shuffled_batches, train

PIXELS, TRIALS = digits.SIDE**2, digits.MAX_PIXEL
LOG_WAYS = [math.log(math.comb(TRIALS, k)) for k in range(TRIALS + 1)]
"""log of the number of ways in which k of a pixel's 16 points can be ink."""

# ── The two terms of the bound ────────────────────────────────────────────────────────────────────────────────────────


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A draw from N(mean, e^log_variance), made of standard normal noise; all [batch, width] (section 2.4)."""
    # exercise 0.30: draw, and let gradients through
    # The half makes a standard deviation of a variance. The die was cast before: noise is a given number like any input,
    # so the draw moves with mean and log-variance in a way that can be differentiated.
    return mean + (log_variance * 0.5).exp() * noise
    # end exercise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) ‖ N(0, 1)) in nats, [batch]: what it costs to name a code that the prior did not expect."""
    # exercise 0.31: what a code costs
    return (mean * mean + log_variance.exp() - log_variance - 1.0).sum(1) * 0.5
    # end exercise


def binomial_log_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """log of the probability of `counts` out of 16, where sigmoid(logits) is the chance of each; [batch, pixels] → [batch]."""
    n, given = float(TRIALS), logits.data
    values = [
        # log(1 + e^l) = max(l, 0) + log(1 + e^−|l|): no exponential overflows.
        LOG_WAYS[int(k)] + k * l - n * (max(l, 0.0) + math.log1p(math.exp(-abs(l))))
        for k, l in zip(counts.data, given, strict=True)
    ]

    def rule(gradient: list[float]) -> Gradients:
        # How many points are ink, less how many were expected: all that the decoder ever hears of an image.
        expected = [n * chance for chance in sigmoid(Tensor(given, logits.shape)).data]
        return ([g * (k - e) for g, k, e in zip(gradient, counts.data, expected, strict=True)],)

    return record_operation(values, logits.shape, (logits,), rule).sum(1)


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class VariationalAutoencoder(Module):
    """Encoder x → mean and log-variance of its codes; decoder z → the logit of a chance of ink, for each pixel."""

    def __init__(self, width: int, hidden: int, random: Random):
        self.encoder = [Linear(PIXELS, hidden, random)]
        self.mean = Linear(hidden, width, random)
        self.log_variance = Linear(hidden, width, random)
        self.decoder = [Linear(width, hidden, random)]
        self.logits = Linear(hidden, PIXELS, random)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images of counts [batch, 64] → mean and log-variance, both [batch, width]."""
        x = images * (1.0 / TRIALS)
        for layer in self.encoder:
            x = layer(x).tanh()
        return self.mean(x), self.log_variance(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [batch, width] → logits [batch, 64]."""
        for layer in self.decoder:
            codes = layer(codes).tanh()
        return self.logits(codes)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms of the bound in nats, each [batch]: log-likelihood of an image given one drawn code, and the KL."""
        mean, log_variance = self.encode(images)
        logits = self.decode(reparameterize(mean, log_variance, noise))
        return binomial_log_likelihood(logits, images), kl_divergence(mean, log_variance)


# ── Learning to write digits ──────────────────────────────────────────────────────────────────────────────────────────

WIDTH, HIDDEN = 6, 64
BATCH, LEARNING_RATE = 32, 5e-3
STEPS, QUICK_STEPS = 1800, 120


def as_tensor(images: list[list[int]]) -> Tensor:
    """Digits as counts, [batch, 64]."""
    return Tensor([float(count) for image in images for count in image], (len(images), PIXELS))


def fit(model: VariationalAutoencoder, images: list[list[int]], steps: int, random: Random) -> list[float]:
    plan = shuffled_batches(len(images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = as_tensor([images[row] for row in plan[step]])
        log_likelihood, kl = model(batch, normal((BATCH, WIDTH), 1.0, random))
        return (kl - log_likelihood).mean()

    optimizer = Adam(model.parameters().values(), LEARNING_RATE)
    return train(
        model, loss_at, optimizer, steps, schedule=partial(warmup_cosine, steps=steps), clip_norm=100.0, label="VAE"
    )


def elbo(model: VariationalAutoencoder, images: list[list[int]], random: Random) -> tuple[float, float]:
    """Mean log-likelihood and mean KL of images, in nats."""
    with no_grad():
        log_likelihood, kl = model(as_tensor(images), normal((len(images), WIDTH), 1.0, random))
    return fmean(log_likelihood.data), fmean(kl.data)


def average_digit(kept: list[list[int]], images: list[list[int]]) -> float:
    """The mean log-likelihood of images under a decoder without a code: each pixel's chance of ink over all training images."""
    totals = [0.0] * PIXELS
    for image in kept:
        totals = list(map(add, totals, image))
    # One point of ink and one of paper more than seen, so that nothing is impossible.
    chances = [(total + 1.0) / (TRIALS * len(kept) + 2.0) for total in totals]
    logits = [math.log(chance / (1.0 - chance)) for chance in chances]
    return fmean(binomial_log_likelihood(Tensor(logits * len(images), (len(images), PIXELS)), as_tensor(images)).data)


# ── What it writes ────────────────────────────────────────────────────────────────────────────────────────────────────


def pictures(model: VariationalAutoencoder, codes: Tensor) -> str:
    """What the decoder expects at each of a few codes, in characters, side by side."""
    with no_grad():
        ink = rows_of(sigmoid(model.decode(codes)).data, PIXELS)
    drawn = [ascii_image(rows_of(image, digits.SIDE)) for image in ink]
    return "\n".join("  " + "   ".join(lines) for lines in zip(*drawn, strict=True))


def walk(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Codes on the straight line between two, both ends included: [steps, width]."""
    shares = [step / (steps - 1) for step in range(steps)]
    codes = [(1 - share) * a + share * b for share in shares for a, b in zip(start.data, end.data, strict=True)]
    return Tensor(codes, (steps, len(start.data)))


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits, and print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    kept, held_out = (data.subset(rows) for rows in digits.train_test_split(len(data.images), 0.2, seed))
    model = VariationalAutoencoder(WIDTH, HIDDEN, random)
    losses = fit(model, kept.images, steps, random)
    log_likelihood, kl = elbo(model, held_out.images, random)
    result = {
        "seed": seed,
        "steps": steps,
        "parameters": sum(len(tensor.data) for tensor in model.parameters().values()),
        "elbo": log_likelihood - kl,
        "kl": kl,
        "baseline": average_digit(kept.images, held_out.images),
        "seconds": time.perf_counter() - start,
        "losses": losses,
    }
    print(f"loss  {sparkline(losses)}  {losses[0]:.0f} → {losses[-1]:.0f} nats")
    print(
        f"\nheld out: log p of {len(held_out.images)} digits that it never saw, in nats an image (a random fifth, seed {seed})"
    )
    print(f"  the average digit, no code   {result['baseline']:7.1f}")
    print(
        f"  VAE, at least (its ELBO)     {result['elbo']:7.1f}   = {log_likelihood:.1f} for the image given its code, − {kl:.1f} for the code"
    )
    print(f"  ({result['parameters']:,} parameters, {result['seconds']:.0f} s)")
    print("\nfive codes drawn from the prior, and what it writes:")
    print(pictures(model, normal((5, WIDTH), 1.0, random)))
    ends = [held_out.labels.index(digit) for digit in (0, 4)]
    with no_grad():
        mean, _ = model.encode(as_tensor([held_out.images[row] for row in ends]))
    print("\na walk from the code of a held-out 0 to that of a held-out 4:")
    print(pictures(model, walk(mean[0], mean[1], 5)))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a variational autoencoder on digits in pure Python.")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}: shapeless digits"
    )
    parser.add_argument("--seed", type=int, default=0, help="what is held out, and every random draw (default 0)")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    main()
