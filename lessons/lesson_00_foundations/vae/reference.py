"""A variational autoencoder in pure Python (Kingma & Welling, arXiv:1312.6114).

It generates new images from a few random numbers. It trains on handwritten digits in under a minute, and prints the
bound on the log-likelihood of held-out digits and some generated digits:

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
from shared.stdlib.output import run_program
from shared.stdlib.shapes import rows_of
from shared.stdlib.sparkline import sparkline
from shared.stdlib.tensor import Tensor, record_operation
from shared.stdlib.training import shuffled_batches, train

PIXELS, TRIALS = digits.SIDE**2, digits.MAX_PIXEL
LOG_COEFFICIENTS = [math.log(math.comb(TRIALS, k)) for k in range(TRIALS + 1)]
"""log of the binomial coefficient for k of a pixel's 16 points."""

# ── The two terms of the bound ────────────────────────────────────────────────────────────────────────────────────────


def reparameterize(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Sample from N(mean, e^log_variance) by scaling standard normal noise; all [batch, width] (section 2.4)."""
    # exercise 0.30: sample with gradients
    # exp(log σ² / 2) is the standard deviation σ. The noise is an input like any other, so the sample is a
    # differentiable function of mean and log-variance.
    return mean + (log_variance * 0.5).exp() * noise
    # end exercise


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, e^log_variance) ‖ N(0, 1)) in nats, [batch]."""
    # exercise 0.31: the KL of a code
    return (mean * mean + log_variance.exp() - log_variance - 1.0).sum(1) * 0.5
    # end exercise


def binomial_log_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """Return the log-probability of `counts` out of 16 with p = sigmoid(logits): [batch, pixels] → [batch]."""
    n = float(TRIALS)
    values = [
        # log(1 + e^l) = max(l, 0) + log(1 + e^−|l|): no exponential overflows.
        LOG_COEFFICIENTS[int(k)] + k * l - n * (max(l, 0.0) + math.log1p(math.exp(-abs(l))))
        for k, l in zip(counts.data, logits.data, strict=True)
    ]

    def backward(gradient: list[float]) -> Gradients:
        # The gradient by a logit is the observed count minus the expected count.
        expected = [n * p for p in sigmoid(Tensor(logits.data, logits.shape)).data]
        return ([g * (k - e) for g, k, e in zip(gradient, counts.data, expected, strict=True)],)

    return record_operation(values, logits.shape, (logits,), backward).sum(1)


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class VariationalAutoencoder(Module):
    """Encode images to mean and log-variance of a code; decode codes to the logit of the ink probability per pixel."""

    def __init__(self, width: int, mlp_dim: int, random: Random):
        self.encoder = [Linear(PIXELS, mlp_dim, random)]
        self.mean = Linear(mlp_dim, width, random)
        self.log_variance = Linear(mlp_dim, width, random)
        self.decoder = [Linear(width, mlp_dim, random)]
        self.logits = Linear(mlp_dim, PIXELS, random)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, both [batch, width], of images of counts [batch, 64]."""
        x = images * (1.0 / TRIALS)
        for layer in self.encoder:
            x = layer(x).tanh()
        return self.mean(x), self.log_variance(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the logits [batch, 64] of codes [batch, width]."""
        for layer in self.decoder:
            codes = layer(codes).tanh()
        return self.logits(codes)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return both terms of the ELBO in nats, each [batch]: log-likelihood given one sampled code, and KL."""
        mean, log_variance = self.encode(images)
        logits = self.decode(reparameterize(mean, log_variance, noise))
        return binomial_log_likelihood(logits, images), kl_divergence(mean, log_variance)


# ── Training on digits ────────────────────────────────────────────────────────────────────────────────────────────────

WIDTH, MLP_DIM = 6, 64
BATCH, LEARNING_RATE = 32, 5e-3
STEPS, QUICK_STEPS = 1800, 120


def images_to_tensor(images: list[list[int]]) -> Tensor:
    """Return digits as counts, [batch, 64]."""
    return Tensor([float(count) for image in images for count in image], (len(images), PIXELS))


def fit(model: VariationalAutoencoder, images: list[list[int]], steps: int, random: Random) -> list[float]:
    """Train the model with the KL at full weight; return the loss at each step."""
    batches = shuffled_batches(len(images), BATCH, steps, random)

    def loss_at(step: int) -> Tensor:
        batch = images_to_tensor([images[row] for row in batches[step]])
        log_likelihood, kl = model(batch, normal((BATCH, WIDTH), 1.0, random))
        return (kl - log_likelihood).mean()

    optimizer = Adam(model.parameters().values(), LEARNING_RATE)
    return train(
        model, loss_at, optimizer, steps, schedule=partial(warmup_cosine, steps=steps), clip_norm=100.0, label="VAE"
    )


def elbo(model: VariationalAutoencoder, images: list[list[int]], random: Random) -> tuple[float, float]:
    """Return the mean log-likelihood and the mean KL of images, in nats."""
    with no_grad():
        log_likelihood, kl = model(images_to_tensor(images), normal((len(images), WIDTH), 1.0, random))
    return fmean(log_likelihood.data), fmean(kl.data)


def average_log_likelihood(training: list[list[int]], images: list[list[int]]) -> float:
    """Return the mean log-likelihood of images under each pixel's mean over the training images, without a code."""
    totals = [0.0] * PIXELS
    for image in training:
        totals = list(map(add, totals, image))
    # One point of ink and one of paper are added, so that no count has probability 0.
    probabilities = [(total + 1.0) / (TRIALS * len(training) + 2.0) for total in totals]
    logits = [math.log(p / (1.0 - p)) for p in probabilities]
    return fmean(
        binomial_log_likelihood(Tensor(logits * len(images), (len(images), PIXELS)), images_to_tensor(images)).data
    )


# ── Generated digits ──────────────────────────────────────────────────────────────────────────────────────────────────


def decoded_images(model: VariationalAutoencoder, codes: Tensor) -> str:
    """Return the decoder's expected images of a few codes as text, side by side."""
    with no_grad():
        images = rows_of(sigmoid(model.decode(codes)).data, PIXELS)
    texts = [ascii_image(rows_of(image, digits.SIDE)) for image in images]
    return "\n".join("  " + "   ".join(lines) for lines in zip(*texts, strict=True))


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Return codes on the straight line between two, both ends included: [steps, width]."""
    fractions = [step / (steps - 1) for step in range(steps)]
    codes = [(1 - t) * a + t * b for t in fractions for a, b in zip(start.data, end.data, strict=True)]
    return Tensor(codes, (steps, len(start.data)))


def run(*, steps: int = STEPS, seed: int = 0) -> dict[str, float | int | list[float]]:
    """Train on four fifths of the digits; print and return what is measured on the fifth that `seed` holds out."""
    start = time.perf_counter()
    data, random = digits.load(), Random(seed)
    training, held_out = (data.subset(rows) for rows in digits.train_test_split(len(data.images), 0.2, seed))
    model = VariationalAutoencoder(WIDTH, MLP_DIM, random)
    losses = fit(model, training.images, steps, random)
    log_likelihood, kl = elbo(model, held_out.images, random)
    baseline = average_log_likelihood(training.images, held_out.images)
    parameters, seconds = sum(len(tensor.data) for tensor in model.parameters().values()), time.perf_counter() - start
    print(f"loss  {sparkline(losses)}  {losses[0]:.0f} → {losses[-1]:.0f} nats")
    print(f"\nlog p of {len(held_out.images)} held-out digits, in nats per image (a random fifth, seed {seed})")
    print(f"  pixel means, no code     {baseline:7.1f}")
    print(
        f"  VAE (lower bound: ELBO)  {log_likelihood - kl:7.1f}   = log-likelihood {log_likelihood:.1f} − KL {kl:.1f}"
    )
    print(f"  ({parameters:,} parameters, {seconds:.0f} s)")
    print("\ndigits decoded from five codes of the prior:")
    print(decoded_images(model, normal((5, WIDTH), 1.0, random)))
    ends = [held_out.labels.index(digit) for digit in (0, 4)]
    with no_grad():
        mean, _ = model.encode(images_to_tensor([held_out.images[row] for row in ends]))
    print("\nan interpolation from the code of a held-out 0 to that of a held-out 4:")
    print(decoded_images(model, interpolate(mean[0], mean[1], 5)))
    return {
        "seed": seed,
        "steps": steps,
        "parameters": parameters,
        "elbo": log_likelihood - kl,
        "kl": kl,
        "baseline": baseline,
        "seconds": seconds,
        "losses": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a variational autoencoder on digits in pure Python.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps instead of {STEPS}: blurred digits")
    parser.add_argument("--seed", type=int, default=0, help="seed of the held-out fifth and of every random draw")
    options = parser.parse_args()
    run(steps=QUICK_STEPS if options.quick else STEPS, seed=options.seed)


if __name__ == "__main__":
    run_program(main)
