"""The part `vae`: pure Python, PyTorch and textbook agree, bounds are bounds, and the models learn."""

import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from lessons.lesson_00_foundations.vae import model as vae_model
from lessons.lesson_00_foundations.vae import reference
from lessons.lesson_00_foundations.vae.experiment import evaluate, exact, figures, train
from lessons.lesson_00_foundations.vae.experiment.arms import ARMS
from lessons.lesson_00_foundations.vae.experiment.claims import CLAIMS
from lessons.lesson_00_foundations.vae.experiment.data import load_images
from lessons.lesson_00_foundations.vae.model import (
    AutoencoderConfig,
    VariationalAutoencoder,
    binomial_log_likelihood,
    kl_divergence,
    negative_elbo,
)
from shared.course.context import RunContext
from shared.course.lesson import Run

ROOT = Path(__file__).parents[3]


def generator():
    return torch.Generator().manual_seed(0)


# ── Pure Python and PyTorch ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_reference_and_model_have_equal_bounds_and_gradients(seed):
    value, gradient = exact.reference_differences(seed)
    assert value < 1e-9
    assert gradient < 1e-9


def test_a_kl_without_its_half_is_found(monkeypatch):
    monkeypatch.setattr(vae_model, "kl_divergence", lambda mean, log_variance: 2 * kl_divergence(mean, log_variance))
    assert min(exact.reference_differences(0)) > 0.01


def test_the_reference_learns():
    result = reference.run(steps=60, seed=1)
    assert result["elbo"] > result["baseline"]
    assert result["kl"] > 1.0
    assert result["losses"][-1] < 0.6 * result["losses"][0]


def test_the_reference_needs_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_00_foundations.vae.reference", "--help"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True)


def test_an_interpolation_starts_and_ends_at_its_codes():
    start, end = (reference.Tensor(list(map(float, ends)), (2,)) for ends in ((0, 4), (1, -4)))
    assert reference.interpolate(start, end, 3).tolist() == [[0, 4], [0.5, 0], [1, -4]]


# ── The bound ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kl_equals_its_sampled_mean_and_the_check_can_fail(monkeypatch):
    assert exact.kl_error(0, draws=20_000) < 5
    monkeypatch.setattr(exact, "kl_divergence", lambda mean, log_variance: 1.05 * kl_divergence(mean, log_variance))
    assert exact.kl_error(0, draws=20_000) > 5


def test_a_sample_scaled_by_the_variance_is_found(monkeypatch):
    monkeypatch.setattr(exact, "reparameterize", lambda mean, log_variance, noise: mean + log_variance.exp() * noise)
    assert exact.kl_error(0, draws=20_000) > 5


def small_model(**sizes):
    torch.manual_seed(3)
    return VariationalAutoencoder(
        AutoencoderConfig(**({"pixels": 6, "width": 2, "mlp_dim": (8,), "trials": 4} | sizes))
    )


def exact_log_likelihood(model, images):
    """Return log p(x) by summation over a fine grid of two-dimensional codes."""
    line = torch.linspace(-6, 6, 241)
    codes = torch.cartesian_prod(line, line)
    log_prior = Normal(0.0, 1.0).log_prob(codes).sum(-1)[:, None]
    logits = model.decode(codes)[:, None].expand(-1, len(images), -1)
    likelihoods = binomial_log_likelihood(logits, images.expand(len(codes), -1, -1), model.config.trials)
    return (likelihoods + log_prior).logsumexp(0) + 2 * math.log(12 / 240)


@torch.no_grad()
def test_the_bounds_are_ordered_below_the_exact_value():
    model, images = small_model(), torch.randint(5, (40, 6)).float()
    for weight in model.parameters():
        weight.mul_(1.5)
    exact_value = exact_log_likelihood(model, images)
    log_likelihood, kl = zip(*(model.elbo(images, torch.randn(40, 2)) for _ in range(200)), strict=True)
    elbo = (torch.stack(log_likelihood) - torch.stack(kl)).mean(0)
    few, many = (model.log_likelihood(images, samples, generator()) for samples in (5, 5000))
    assert (elbo.mean() < few.mean() - 0.01) and (few.mean() < exact_value.mean())
    assert (elbo < exact_value + 0.05).all()
    # With many samples the bound reaches the exact value.
    torch.testing.assert_close(many.mean(), exact_value.mean(), atol=0.05, rtol=0)


@torch.no_grad()
def test_with_one_sample_the_mean_bound_is_the_elbo():
    model, images = small_model(), torch.randint(5, (1, 6)).float().expand(20_000, -1)
    log_likelihood, kl = model.elbo(images, torch.randn(20_000, 2))
    one = model.log_likelihood(images, 1, generator())
    torch.testing.assert_close(one.mean(), (log_likelihood - kl).mean(), atol=0.05, rtol=0)


def test_the_loss_is_the_negative_elbo_with_a_weighted_kl():
    model, images, noise = small_model(), torch.randint(5, (7, 6)).float(), torch.randn(7, 2)
    log_likelihood, kl = model.elbo(images, noise)
    torch.testing.assert_close(negative_elbo(model, images, noise), (kl - log_likelihood).mean())
    torch.testing.assert_close(negative_elbo(model, images, noise, 0.0), -log_likelihood.mean())
    assert negative_elbo(model, images, noise) > negative_elbo(model, images, noise, 0.0)


def test_two_samples_for_one_image_differ():
    model, images = small_model(), torch.randint(5, (7, 6)).float()
    one, other = (model.elbo(images, noise)[0] for noise in (torch.randn(7, 2), torch.randn(7, 2)))
    assert (one - other).abs().min() > 1e-5


@torch.no_grad()
def test_samples_are_counts_with_pixel_noise_and_means_without():
    model = small_model()
    expected, noisy = (model.sample(20_000, generator(), pixel_noise=noise) for noise in (False, True))
    assert (noisy == noisy.round()).all() and noisy.min() >= 0 and noisy.max() <= 4
    torch.testing.assert_close(expected.mean(0), noisy.mean(0), atol=0.05, rtol=0)
    assert (noisy.var(0) > expected.var(0) + 0.1).all()


def test_errors_name_the_problem():
    with pytest.raises(ValueError, match="at least 1"):
        AutoencoderConfig(width=0)
    with pytest.raises(ValueError, match="flatten"):
        small_model().encode(torch.zeros(2, 5))


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run every arm with minimal settings, in the folders of a run."""
    folder = tmp_path_factory.mktemp("run")
    results, minimal = {}, {"steps": 3, "classifier_steps": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "SAMPLES", 50)
        patch.setattr(evaluate, "IMPORTANCE_SAMPLES", 3)
        for arm in ARMS:
            module, _, function = arm.function.partition(":")
            arm_folder = folder / "seed-0" / arm.name
            arm_folder.mkdir(parents=True)
            settings = {name: minimal.get(name, value) for name, value in arm.presets["smoke"].items()}
            context = RunContext(seed=0, data="digits", device="cpu", folder=arm_folder)
            results[arm.name] = getattr(importlib.import_module(module), function)(context, **settings)
    return Run("smoke", "cpu", "digits", (0,), folder, {0: results}, "vae")


def test_every_claim_and_figure_follows_from_the_arms(measured):
    for claim in CLAIMS:
        assert math.isfinite(claim.measure(measured.arms[0]))
        assert claim.baseline is None or math.isfinite(claim.baseline(measured.arms[0]))
    assert figures.draw(measured).keys() == figures.CAPTIONS.keys()


def test_the_vae_learns_more_than_the_mean_digit(tmp_path):
    context = RunContext(seed=0, data="digits", device="cpu", folder=tmp_path)
    measured = train.train_vae(context, steps=150, classifier_steps=3, width=4)
    images = load_images(0)
    assert measured["elbo"] > -200  # the mean digit without a code has about −253
    assert measured["error"] < 0.6 * evaluate.mean_squared_error(
        images.train.mean(0).expand_as(images.test), images.test
    )
    assert measured["log_likelihood"] > measured["elbo"] + 1.0
    assert measured["kl"] > 3.0
