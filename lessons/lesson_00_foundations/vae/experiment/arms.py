"""The arms of the part `vae`: autoencoders and the simpler models beside them, all shown to the same judge."""

import math
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.vae import reference
from lessons.lesson_00_foundations.vae.experiment.judge import Judge, opinion, train_judge
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA
from lessons.lesson_00_foundations.vae.model import (
    AutoencoderConfig,
    VariationalAutoencoder,
    binomial_log_likelihood,
    kl_divergence,
    negative_elbo,
    reparameterize,
)
from shared.stdlib import digits
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

SAMPLES = 4000
"""How many new images of each model the judge is shown."""
IMPORTANCE_SAMPLES = 200
TRIALS = digits.MAX_PIXEL


class Images(NamedTuple):
    """The digits as counts from 0 to 16, [n, 64]; `seed` draws the fifth that is held out."""

    train: Float[Tensor, "train pixels"]
    train_labels: Int[Tensor, " train"]
    test: Float[Tensor, "test pixels"]
    test_labels: Int[Tensor, " test"]


def read_images(seed: int) -> Images:
    everything = digits.load()
    parts = [everything.subset(rows) for rows in digits.train_test_split(len(everything.images), 0.2, seed)]
    return Images(
        *(torch.tensor(numbers) * one for part in parts for numbers, one in ((part.images, 1.0), (part.labels, 1)))
    )


def with_noise(width: int):
    """Augmentation: to each image the noise that its code will be drawn with, so that a batch is all that a step depends on."""

    def augment(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return images, torch.randn(len(images), width, generator=generator)

    return augment


def train_vae(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    judge_steps: int,
    learning_rate: float = 2e-3,
    kl_weight: float = 1.0,
    **sizes,
) -> dict:
    """Train an autoencoder; measure its bound, its reconstructions and its samples on and against held-out digits."""
    images = read_images(seed)
    torch.manual_seed(seed)
    model = VariationalAutoencoder(config_of(**sizes))
    width = model.config.width
    noise = torch.randn(len(images.test), width, generator=Generator().manual_seed(seed))

    def held_out(trained: VariationalAutoencoder) -> dict[str, float]:
        where = next(trained.parameters()).device
        log_likelihood, kl = trained.elbo(images.test.to(where), noise.to(where))
        return {"elbo": (log_likelihood - kl).mean().item(), "kl": kl.mean().item()}

    config = TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=steps // 20,
        clip_norm=100.0,
        seed=seed,
        log_every=max(1, steps // 20),
    )
    result = train(
        model,
        Batches(images.train, batch_size=128, seed=seed, augment=with_noise(width)),
        lambda trained, batch: negative_elbo(trained, *batch, kl_weight),
        config,
        run=RunOptions(folder=folder / "training", resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(held_out, every=max(1, steps // 20)),
    )
    model = result.model.cpu()
    judge = train_judge(
        images.train,
        images.train_labels,
        steps=judge_steps,
        seed=seed,
        device=device,
        folder=folder / "judge",
        resume=resume,
    )
    with torch.no_grad():
        return judged(model, images, judge, seed) | held_out(model) | between(model, images, judge, seed) | {
            "training_error": mean_squared_error(model.reconstruct(images.train), images.train),
            "elbo_curve": curve_from_history(result.history, "evaluation/elbo"),
            "loss_curve": curve_from_history(result.history, "loss"),
        }  # fmt: skip


def config_of(*, width: int, hidden: list[int] | None = None) -> AutoencoderConfig:
    """The lesson's autoencoder at a width of code; `hidden` as JSON has it."""
    return AutoencoderConfig(width=width) if hidden is None else AutoencoderConfig(width=width, hidden=tuple(hidden))


def fit_pca(*, seed: int, data: str, device: str, folder: Path, resume: bool, judge_steps: int, width: int) -> dict:
    """The Gaussian in principal components, measured in the same way."""
    images = read_images(seed)
    judge = train_judge(
        images.train,
        images.train_labels,
        steps=judge_steps,
        seed=seed,
        device=device,
        folder=folder / "judge",
        resume=resume,
    )
    with torch.no_grad():
        return judged(GaussianInPCA.fit(images.train, width), images, judge, seed)


def judged(model: VariationalAutoencoder | GaussianInPCA, images: Images, judge: Judge, seed: int) -> dict[str, float]:
    """What is measured of every model: its bound and its reconstructions on held-out digits, and the judge's opinion of its samples.

    Names that begin with "grain_" are of samples with the noise of their pixels, the others of the image expected.
    `nearest` compares how far samples and held-out digits lie from the nearest digit trained on: copies would be near 0.
    """
    generator = Generator().manual_seed(seed)
    smooth, grainy = (model.sample(SAMPLES, generator, grain=grain) for grain in (False, True))
    return opinion(judge, smooth, images.test) | {
        f"grain_{name}": value for name, value in opinion(judge, grainy, images.test).items()
    } | {
        "log_likelihood": model.log_likelihood(images.test, IMPORTANCE_SAMPLES, generator).mean().item(),
        "error": mean_squared_error(model.reconstruct(images.test), images.test),
        "nearest": to_nearest(grainy, images.train) / to_nearest(images.test, images.train),
    }  # fmt: skip


def between(
    model: VariationalAutoencoder, images: Images, judge: Judge, seed: int, pairs: int = 1000
) -> dict[str, float]:
    """How sure the judge is halfway between two held-out digits of different kinds: decoded from between their codes, and
    cross-faded from one reconstruction to the other. In a linear model the two are the same picture."""
    rows = torch.randint(len(images.test), (2, 2 * pairs), generator=Generator().manual_seed(seed))
    rows = rows[:, images.test_labels[rows[0]] != images.test_labels[rows[1]]][:, :pairs]
    codes, _ = model.encode(images.test)
    halfway = {"codes": model.ink(codes[rows].mean(dim=0)), "pixels": model.ink(codes)[rows].mean(dim=0)}
    return {
        f"between_{name}": opinion(judge, pictures, images.test)["confidence"] for name, pictures in halfway.items()
    }


def to_nearest(images: Tensor, others: Tensor) -> float:
    """The median over images of the distance to the nearest of the others."""
    return torch.cdist(images, others).amin(dim=1).median().item()


def mean_squared_error(one: Tensor, other: Tensor) -> float:
    """Per pixel, in points of ink squared (a pixel has 16)."""
    return F.mse_loss(one, other).item()


def look_at_digits(*, seed: int, data: str, device: str, folder: Path, resume: bool, judge_steps: int) -> dict:
    """What bounds the others: real digits before the judge, and two models without a code.

    The average digit is a decoder that hears no code; independent pixels have each its own table of 17 chances, and
    know nothing of one another.
    """
    images = read_images(seed)
    judge = train_judge(
        images.train,
        images.train_labels,
        steps=judge_steps,
        seed=seed,
        device=device,
        folder=folder / "judge",
        resume=resume,
    )
    average = images.train.mean(dim=0)
    # One more point of ink and of paper than seen, and a tenth of a digit more at each count: nothing is impossible.
    chance = (average * len(images.train) + 1) / (TRIALS * len(images.train) + 2)
    tables = F.one_hot(images.train.long(), TRIALS + 1).sum(dim=0) + 0.1
    tables = tables / tables.sum(dim=1, keepdim=True)
    generator = Generator().manual_seed(seed)
    drawn = torch.multinomial(tables, SAMPLES, replacement=True, generator=generator).T.float()
    seen = {"real": images.train, "independent": drawn}
    opinions = {
        f"{name}_{what}": value
        for name, pictures in seen.items()
        for what, value in opinion(judge, pictures, images.test).items()
    }
    return opinions | {
        "judge_accuracy": (judge(images.test).argmax(dim=1) == images.test_labels).double().mean().item(),
        "average_error": mean_squared_error(average.expand_as(images.test), images.test),
        "average_log_likelihood": binomial_log_likelihood(chance.logit().expand_as(images.test), images.test, TRIALS).mean().item(),
        "independent_log_likelihood": tables.log().gather(1, images.test.long().T).sum(dim=0).mean().item(),
    }  # fmt: skip


# ── Is the mathematics right? ─────────────────────────────────────────────────────────────────────────────────────────


def check_mechanism(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """Pure Python against PyTorch with the same weights, and the KL in closed form against draws."""
    value, gradient = reference_differences(seed)
    return {
        "reference_difference": value,
        "reference_gradient_difference": gradient,
        "kl_error": kl_error(seed, draws=100_000),
    }


def reference_differences(seed: int) -> tuple[float, float]:
    """The largest difference of both terms of the bound, and of its gradient by any weight (float64)."""
    torch.manual_seed(seed)
    model = VariationalAutoencoder(AutoencoderConfig(width=5, hidden=(12,))).double()
    plain = reference.VariationalAutoencoder(5, 12, Random(seed))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    plain.load_parameters({name: weight.flatten().tolist() for name, weight in model.named_parameters()})
    images = torch.randint(TRIALS + 1, (4, 64)).double()
    noise = torch.randn(4, 5, dtype=torch.float64)
    theirs = model.elbo(images, noise)
    (theirs[1] - theirs[0]).mean().backward()
    ours = plain(to_stdlib(images), to_stdlib(noise))
    (ours[1] - ours[0]).mean().backward()

    parameters = plain.parameters()
    return (
        max(max_abs_difference(to_torch(here), there) for here, there in zip(ours, theirs, strict=True)),
        max(max_abs_difference(parameters[name].grad, weight.grad) for name, weight in model.named_parameters()),
    )


def kl_error(seed: int, draws: int) -> float:
    """How many standard errors the closed form lies from the mean of log q(z) − log p(z) over draws z from q, at worst of 20."""
    generator = Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, 20, 3, dtype=torch.float64, generator=generator)
    noise = torch.randn(draws, 20, 3, dtype=torch.float64, generator=generator)
    codes = reparameterize(mean, log_variance, noise)
    # log q(z) − log p(z); what both have of log 2π cancels.
    surprise = 0.5 * (codes**2 - noise**2 - log_variance).sum(dim=-1)
    standard_error = surprise.std(dim=0) / math.sqrt(draws)
    return ((surprise.mean(dim=0) - kl_divergence(mean, log_variance)).abs() / standard_error).max().item()
