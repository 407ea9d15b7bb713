"""The part `vae`: pure Python, PyTorch and textbook agree, bounds are bounds, and the models learn."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from lessons.lesson_00_foundations.vae import model as vae_model
from lessons.lesson_00_foundations.vae import reference
from lessons.lesson_00_foundations.vae.experiment import arms, figures
from lessons.lesson_00_foundations.vae.experiment.claims import ARMS, CLAIMS
from lessons.lesson_00_foundations.vae.experiment.judge import Judge, frechet_distance, opinion
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA, rounded_normal_log_likelihood
from lessons.lesson_00_foundations.vae.model import (
    AutoencoderConfig,
    VariationalAutoencoder,
    binomial_log_likelihood,
    kl_divergence,
    negative_elbo,
)
from shared.course.lesson import Run

ROOT = Path(__file__).parents[3]
SETTINGS = {"seed": 0, "data": "digits", "device": "cpu", "resume": False}


def generator():
    return torch.Generator().manual_seed(0)


# ── Pure Python and PyTorch ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_reference_and_model_have_the_same_bound_and_gradients(seed):
    value, gradient = arms.reference_differences(seed)
    assert value < 1e-9
    assert gradient < 1e-9


def test_a_kl_without_its_half_is_found(monkeypatch):
    monkeypatch.setattr(vae_model, "kl_divergence", lambda mean, log_variance: 2 * kl_divergence(mean, log_variance))
    assert min(arms.reference_differences(0)) > 0.01


def test_the_reference_learns_and_speaks():
    result = reference.run(steps=60, seed=1)
    assert result["elbo"] > result["baseline"]
    assert result["kl"] > 1.0
    assert result["losses"][-1] < 0.6 * result["losses"][0]


def test_the_reference_needs_nothing_installed():
    command = [sys.executable, "-S", "-m", "lessons.lesson_00_foundations.vae.reference", "--help"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True)


def test_a_walk_begins_and_ends_at_its_codes():
    start, end = (reference.Tensor(list(map(float, ends)), (2,)) for ends in ((0, 4), (1, -4)))
    assert reference.walk(start, end, 3).tolist() == [[0, 4], [0.5, 0], [1, -4]]


# ── The bound ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_kl_is_what_draws_say_and_the_check_can_fail(monkeypatch):
    assert arms.kl_error(0, draws=20_000) < 5
    monkeypatch.setattr(arms, "kl_divergence", lambda mean, log_variance: 1.05 * kl_divergence(mean, log_variance))
    assert arms.kl_error(0, draws=20_000) > 5


def test_a_draw_forgetting_the_half_in_log_variance_is_found(monkeypatch):
    monkeypatch.setattr(arms, "reparameterize", lambda mean, log_variance, noise: mean + log_variance.exp() * noise)
    assert arms.kl_error(0, draws=20_000) > 5


def small_model(**sizes):
    torch.manual_seed(3)
    return VariationalAutoencoder(AutoencoderConfig(**({"pixels": 6, "width": 2, "hidden": (8,), "trials": 4} | sizes)))


def exact_log_likelihood(model, images):
    """log p(x) by adding up over a fine grid of codes of two numbers."""
    line = torch.linspace(-6, 6, 241)
    codes = torch.cartesian_prod(line, line)
    log_prior = Normal(0.0, 1.0).log_prob(codes).sum(-1)[:, None]
    logits = model.decode(codes)[:, None].expand(-1, len(images), -1)
    likelihoods = binomial_log_likelihood(logits, images.expand(len(codes), -1, -1), model.config.trials)
    return (likelihoods + log_prior).logsumexp(0) + 2 * math.log(12 / 240)


@torch.no_grad()
def test_the_bounds_stand_in_order_below_the_truth():
    model, images = small_model(), torch.randint(5, (40, 6)).float()
    for weight in model.parameters():
        weight.mul_(1.5)
    truth = exact_log_likelihood(model, images)
    log_likelihood, kl = zip(*(model.elbo(images, torch.randn(40, 2)) for _ in range(200)), strict=True)
    elbo = (torch.stack(log_likelihood) - torch.stack(kl)).mean(0)
    few, many = (model.log_likelihood(images, samples, generator()) for samples in (5, 5000))
    assert (elbo.mean() < few.mean() - 0.01) and (few.mean() < truth.mean())
    assert (elbo < truth + 0.05).all()
    # With many samples the bound is the truth.
    torch.testing.assert_close(many.mean(), truth.mean(), atol=0.05, rtol=0)


@torch.no_grad()
def test_with_one_sample_the_bound_is_on_average_the_elbo():
    model, images = small_model(), torch.randint(5, (1, 6)).float().expand(20_000, -1)
    log_likelihood, kl = model.elbo(images, torch.randn(20_000, 2))
    one = model.log_likelihood(images, 1, generator())
    torch.testing.assert_close(one.mean(), (log_likelihood - kl).mean(), atol=0.05, rtol=0)


def test_the_loss_is_the_bound_turned_round_and_its_parts_can_be_weighed():
    model, images, noise = small_model(), torch.randint(5, (7, 6)).float(), torch.randn(7, 2)
    log_likelihood, kl = model.elbo(images, noise)
    torch.testing.assert_close(negative_elbo(model, images, noise), (kl - log_likelihood).mean())
    torch.testing.assert_close(negative_elbo(model, images, noise, 0.0), -log_likelihood.mean())
    assert negative_elbo(model, images, noise) > negative_elbo(model, images, noise, 0.0)


def test_two_draws_of_an_image_differ():
    model, images = small_model(), torch.randint(5, (7, 6)).float()
    one, other = (model.elbo(images, noise)[0] for noise in (torch.randn(7, 2), torch.randn(7, 2)))
    assert (one - other).abs().min() > 1e-5


@torch.no_grad()
def test_samples_are_counts_with_grain_and_means_without():
    model = small_model()
    smooth, grainy = (model.sample(20_000, generator(), grain=grain) for grain in (False, True))
    assert (grainy == grainy.round()).all() and grainy.min() >= 0 and grainy.max() <= 4
    torch.testing.assert_close(smooth.mean(0), grainy.mean(0), atol=0.05, rtol=0)
    assert (grainy.var(0) > smooth.var(0) + 0.1).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 1"):
        AutoencoderConfig(width=0)
    with pytest.raises(ValueError, match="flatten"):
        small_model().encode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="fewer"):
        GaussianInPCA.fit(torch.randn(10, 4), 4)


# ── The Gaussian in principal components ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cloud():
    return torch.randn(300, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) * 2 + 8


def test_reconstruction_is_the_best_linear_one(cloud):
    model = GaussianInPCA.fit(cloud, 2)
    error = ((model.reconstruct(cloud) - cloud) ** 2).sum(1).mean()
    torch.testing.assert_close(error, 3 * model.noise)
    turned = replace(model, axes=torch.linalg.qr(model.axes + 0.1 * torch.randn(5, 2, dtype=torch.float64))[0])
    assert ((turned.reconstruct(cloud) - cloud) ** 2).sum(1).mean() > error


def test_the_model_has_the_variance_of_the_data_along_its_axes(cloud):
    model = GaussianInPCA.fit(cloud, 2)
    covariance = model.loadings @ model.loadings.T + model.noise * torch.eye(5)
    torch.testing.assert_close(model.axes.T @ covariance @ model.axes, torch.diag(model.variances))
    torch.testing.assert_close(covariance.trace(), cloud.var(0, correction=0).sum())


def test_its_posterior_is_bayes_rule(cloud):
    model = GaussianInPCA.fit(cloud, 2)
    mean, log_variance = model.posterior(cloud[:3])
    precision = torch.eye(2) + model.loadings.T @ model.loadings / model.noise
    torch.testing.assert_close(torch.diag(log_variance[0].exp()), precision.inverse())
    expected = (cloud[:3] - model.mean) @ model.loadings / model.noise @ precision.inverse()
    torch.testing.assert_close(mean, expected)


def test_its_bound_is_the_probability_of_rounded_counts(cloud):
    """On counts far apart from the edges, a cell of width 1 has about the density's probability, if the noise is wide."""
    model = replace(GaussianInPCA.fit(cloud * 4, 2), trials=1000)
    images = (cloud[:20] * 4).round()
    covariance = model.loadings @ model.loadings.T + model.noise * torch.eye(5)
    expected = MultivariateNormal(model.mean, covariance).log_prob(images)
    keep = images.amin(1) > 1
    found = model.log_likelihood(images, 500, generator())
    torch.testing.assert_close(found[keep], expected[keep], atol=0.02, rtol=0)


@pytest.mark.parametrize("center", [-60.0, 3.3, 16.2, 90.0])
def test_rounded_and_cut_normals_have_probabilities_that_sum_to_one(center):
    counts = torch.arange(17, dtype=torch.float64)[:, None]
    mean = torch.full((1, 17, 1), center, dtype=torch.float64)
    logs = rounded_normal_log_likelihood(mean, torch.tensor(1.5, dtype=torch.float64), counts, 16)
    assert logs.isfinite().all()
    assert logs.exp().sum().item() == pytest.approx(1.0)


def test_its_samples_have_the_mean_and_spread_of_the_data(cloud):
    inside = replace(GaussianInPCA.fit(cloud / 4 + 500, 2), trials=1000)
    grainy = inside.sample(20_000, generator(), grain=True)
    assert (grainy == grainy.round()).all()
    covariance = inside.loadings @ inside.loadings.T + inside.noise * torch.eye(5)
    # Rounding to whole numbers adds the variance of a cell, 1/12.
    torch.testing.assert_close(grainy.T.cov(), covariance + torch.eye(5) / 12, atol=0.15, rtol=0.05)
    smooth = (inside.sample(20_000, generator()) - inside.mean) @ inside.axes
    torch.testing.assert_close(smooth.var(0), inside.variances, atol=0.0, rtol=0.05)


# ── The judge ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sayer(Judge):
    """A judge that says what it is shown."""

    def forward(self, images):
        return images

    features = forward


def test_the_score_wants_sure_answers_of_every_kind():
    sure = 50.0 * torch.eye(10).repeat(5, 1)
    real = torch.randn(50, 10)
    found = opinion(Sayer(), sure, real)
    assert [found[name] for name in ("confidence", "classes", "score")] == pytest.approx([1, 10, 10])
    found = opinion(Sayer(), sure[:1].expand(50, -1), real)
    assert [found[name] for name in ("confidence", "classes", "score")] == pytest.approx([1, 1, 1])
    found = opinion(Sayer(), torch.zeros(50, 10), real)
    assert [found[name] for name in ("confidence", "classes", "score")] == pytest.approx([0.1, 10, 1])


def test_the_distance_is_that_of_two_gaussians():
    cloud = torch.randn(400, 3, dtype=torch.float64)
    cloud = (cloud - cloud.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(cloud.T.cov())).T
    assert frechet_distance(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(cloud, cloud + torch.tensor([1.0, 2.0, 2.0])) == pytest.approx(9)
    # Along each axis (σ₁ − σ₂)².
    assert frechet_distance(cloud, cloud * torch.tensor([3.0, 1.0, 0.5])) == pytest.approx(4 + 0.25)


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Every arm, as small as can be, in the folders of a run."""
    folder = tmp_path_factory.mktemp("run")
    found, short = {}, {"steps": 3, "judge_steps": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arms, "SAMPLES", 50)
        patch.setattr(arms, "IMPORTANCE_SAMPLES", 3)
        for arm in ARMS:
            function = getattr(arms, arm.function.split(":")[1])
            place = folder / "seed-0" / arm.name
            place.mkdir(parents=True)
            settings = {name: short.get(name, value) for name, value in arm.presets["smoke"].items()}
            found[arm.name] = function(**SETTINGS, folder=place, **settings)
    return Run("smoke", "cpu", "digits", (0,), folder, {0: found}, "vae")


def test_every_claim_and_figure_can_be_made_from_the_arms(measured):
    for claim in CLAIMS:
        assert math.isfinite(claim.measure(measured.arms[0]))
        assert claim.baseline is None or math.isfinite(claim.baseline(measured.arms[0]))
    assert figures.draw(measured).keys() == figures.CAPTIONS.keys()


def test_it_learns_more_than_the_average_digit(tmp_path):
    found = arms.train_vae(**SETTINGS, folder=tmp_path, steps=150, judge_steps=3, width=4)
    images = arms.read_images(0)
    assert found["elbo"] > -200  # the average digit without a code has about −253
    assert found["error"] < 0.6 * arms.mean_squared_error(images.train.mean(0).expand_as(images.test), images.test)
    assert found["log_likelihood"] > found["elbo"] + 1.0
    assert found["kl"] > 3.0
