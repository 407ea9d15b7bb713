"""Exact checks of the part `vae`: pure Python equals PyTorch, and the KL's closed form equals its sampled mean."""

import math
from random import Random

import torch
from torch import Generator

from lessons.lesson_00_foundations.vae import reference
from lessons.lesson_00_foundations.vae.experiment.data import TRIALS
from lessons.lesson_00_foundations.vae.model import (
    AutoencoderConfig,
    VariationalAutoencoder,
    kl_divergence,
    reparameterize,
)
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch


def check_mechanism(context: RunContext) -> dict:
    """Return the largest differences between computations that must agree."""
    value, gradient = reference_differences(context.seed)
    return {
        "reference_difference": value,
        "reference_gradient_difference": gradient,
        "kl_error": kl_error(context.seed, draws=100_000),
    }


def reference_differences(seed: int) -> tuple[float, float]:
    """Compare both terms of the ELBO, and its gradient by every weight, in pure Python and PyTorch (float64)."""
    torch.manual_seed(seed)
    model = VariationalAutoencoder(AutoencoderConfig(width=5, mlp_dim=(12,))).double()
    plain_model = reference.VariationalAutoencoder(5, 12, Random(seed))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    plain_model.load_parameters({name: weight.flatten().tolist() for name, weight in model.named_parameters()})
    images = torch.randint(TRIALS + 1, (4, 64)).double()
    noise = torch.randn(4, 5, dtype=torch.float64)
    terms = model.elbo(images, noise)
    (terms[1] - terms[0]).mean().backward()
    plain_terms = plain_model(to_stdlib(images), to_stdlib(noise))
    (plain_terms[1] - plain_terms[0]).mean().backward()

    plain_weights = plain_model.parameters()
    return (
        max(max_abs_difference(to_torch(plain), term) for plain, term in zip(plain_terms, terms, strict=True)),
        max(max_abs_difference(plain_weights[name].grad, weight.grad) for name, weight in model.named_parameters()),
    )


def kl_error(seed: int, draws: int) -> float:
    """Return the largest difference of the KL's closed form from a sampled mean, in standard errors, over 20 Gaussians.

    The sampled mean is that of log q(z) − log p(z) over `draws` samples z from q.
    """
    generator = Generator().manual_seed(seed)
    mean, log_variance = torch.randn(2, 20, 3, dtype=torch.float64, generator=generator)
    noise = torch.randn(draws, 20, 3, dtype=torch.float64, generator=generator)
    codes = reparameterize(mean, log_variance, noise)
    # log q(z) − log p(z); the terms in log 2π cancel.
    log_ratio = 0.5 * (codes**2 - noise**2 - log_variance).sum(dim=-1)
    standard_error = log_ratio.std(dim=0) / math.sqrt(draws)
    return ((log_ratio.mean(dim=0) - kl_divergence(mean, log_variance)).abs() / standard_error).max().item()
