"""The exercises of the part `vae`: each test says what must hold, and a small mistake breaks one of them."""

import math

import pytest
import torch
from torch.distributions import Binomial, Normal, kl_divergence


def close(given, expected, tolerance=1e-9):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


def bells(batch=4, width=3):
    return torch.randn(batch, width, dtype=torch.float64), torch.randn(batch, width, dtype=torch.float64)


# ── 0.30: draw, and let gradients through ─────────────────────────────────────────────────────────────────────────────

REPARAMETERIZE = "vae.reference:reparameterize"


@pytest.mark.exercise("0.30")
def test_a_draw_has_the_mean_and_the_variance_asked_for(student):
    mean, log_variance = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[0.0, 2.0, -3.0]])
    noise = torch.randn(20_000, 3)
    draws = student(REPARAMETERIZE, mean=mean, log_variance=log_variance, noise=noise)
    assert draws.shape == (20_000, 3)
    deviation = (log_variance[0] / 2).exp()
    close(draws.mean(0), mean[0] + deviation * noise.mean(0), 1e-4)
    close(draws.std(0), deviation * noise.std(0), 1e-4)


@pytest.mark.exercise("0.30")
def test_without_noise_a_draw_is_the_mean(student):
    mean, log_variance = bells()
    close(student(REPARAMETERIZE, mean=mean, log_variance=log_variance, noise=torch.zeros(4, 3)), mean)


@pytest.mark.exercise("0.30")
def test_a_draw_moves_with_mean_and_variance(student):
    mean, log_variance = bells()
    noise, upstream = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    _, gradients = student(REPARAMETERIZE, upstream=upstream, mean=mean, log_variance=log_variance, noise=noise)
    close(gradients["mean"], upstream)
    close(gradients["log_variance"], upstream * noise * (log_variance / 2).exp() / 2)


# ── 0.31: what a code costs ───────────────────────────────────────────────────────────────────────────────────────────

KL = "vae.reference:kl_divergence"


@pytest.mark.exercise("0.31")
def test_the_kl_is_that_of_two_bells(student):
    mean, log_variance = bells()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(4, 3), 1.0)).sum(1)
    close(student(KL, mean=mean, log_variance=log_variance), expected)


@pytest.mark.exercise("0.31")
def test_the_prior_itself_costs_nothing_and_everything_else_something(student):
    zero = torch.zeros(1, 2)
    close(student(KL, mean=zero, log_variance=zero), torch.zeros(1))
    for mean, log_variance in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        cost = student(KL, mean=torch.full((1, 2), mean), log_variance=torch.full((1, 2), log_variance))
        assert cost.item() > 1e-3


@pytest.mark.exercise("0.31")
def test_the_kl_pulls_towards_the_prior(student):
    mean, log_variance = bells()
    _, gradients = student(KL, upstream=torch.ones(4), mean=mean, log_variance=log_variance)
    close(gradients["mean"], mean)
    close(gradients["log_variance"], (log_variance.exp() - 1) / 2)


# ── 0.32: the likelihood of counts ────────────────────────────────────────────────────────────────────────────────────

LIKELIHOOD = "vae.model:binomial_log_likelihood"


@pytest.mark.exercise("0.32")
@pytest.mark.parametrize("trials", [1, 5, 16])
def test_counts_have_the_binomial_probability(student, trials):
    logits = torch.randn(3, 7, dtype=torch.float64) * 3
    counts = torch.randint(trials + 1, (3, 7)).double()
    expected = Binomial(trials, logits=logits).log_prob(counts).sum(-1)
    close(student(LIKELIHOOD, logits=logits, counts=counts, trials=trials), expected)


@pytest.mark.exercise("0.32")
def test_the_probabilities_of_all_counts_sum_to_one(student):
    counts = torch.arange(17, dtype=torch.float64)[:, None]
    logits = torch.full((17, 1), 0.7, dtype=torch.float64)
    close(student(LIKELIHOOD, logits=logits, counts=counts, trials=16).exp().sum(), torch.tensor(1.0))


@pytest.mark.exercise("0.32")
@pytest.mark.parametrize("size", [30.0, 500.0])
def test_sure_and_right_costs_nothing_and_sure_and_wrong_stays_finite(student, size):
    logits = torch.tensor([[size, -size], [-size, size]])
    counts = torch.tensor([[16.0, 0.0], [16.0, 0.0]])
    found = student(LIKELIHOOD, logits=logits, counts=counts, trials=16)
    close(found, torch.tensor([0.0, -32 * size]), 1e-2)


@pytest.mark.exercise("0.32")
def test_the_likelihood_hears_ink_less_expected_ink(student):
    logits, counts = torch.randn(2, 5, dtype=torch.float64), torch.tensor([[0, 3, 8, 16, 9], [16, 1, 0, 4, 4]]).double()
    _, gradients = student(LIKELIHOOD, upstream=torch.ones(2), logits=logits, counts=counts, trials=16)
    close(gradients["logits"], counts - 16 * logits.sigmoid())


# ── 0.33: a tighter bound ─────────────────────────────────────────────────────────────────────────────────────────────

BOUND = "vae.model:importance_weighted_bound"


def bound_arguments(samples=6, batch=4, width=3):
    mean, log_variance = bells(batch, width)
    codes = mean + (log_variance / 2).exp() * torch.randn(samples, batch, width, dtype=torch.float64)
    likelihoods = torch.randn(samples, batch, dtype=torch.float64) * 5 - 900
    return {"log_likelihoods": likelihoods, "codes": codes, "mean": mean, "log_variance": log_variance}


@pytest.mark.exercise("0.33")
def test_the_bound_is_the_log_of_the_mean_weight(student):
    arguments = bound_arguments()
    posterior = Normal(arguments["mean"], (arguments["log_variance"] / 2).exp())
    weights = Normal(0.0, 1.0).log_prob(arguments["codes"]).sum(-1) - posterior.log_prob(arguments["codes"]).sum(-1)
    # The likelihoods are near e^−900, which is no number; taking 900 out and adding it again is the test's way round.
    expected = (weights + arguments["log_likelihoods"] + 900).exp().mean(0).log() - 900
    close(student(BOUND, **arguments), expected)


@pytest.mark.exercise("0.33")
@pytest.mark.parametrize("samples", [1, 2, 50])
def test_with_the_true_posterior_the_bound_is_log_p_itself(student, samples):
    """z is N(0, 1) and x is N(z, 1): then z given x is N(x/2, 1/2), and x is N(0, 2)."""
    x = torch.tensor([-1.0, 0.3, 4.0], dtype=torch.float64)
    mean, log_variance = x[:, None] / 2, torch.full((3, 1), math.log(0.5), dtype=torch.float64)
    codes = mean + math.sqrt(0.5) * torch.randn(samples, 3, 1, dtype=torch.float64)
    likelihoods = -((x - codes[..., 0]) ** 2) / 2 - math.log(2 * math.pi) / 2
    bound = student(BOUND, log_likelihoods=likelihoods, codes=codes, mean=mean, log_variance=log_variance)
    close(bound, -(x**2) / 4 - math.log(4 * math.pi) / 2)


@pytest.mark.exercise("0.33")
def test_every_sample_pulls_by_its_share(student):
    arguments = bound_arguments()
    _, gradients = student(BOUND, upstream=torch.ones(4), **arguments)
    shares = gradients["log_likelihoods"]
    close(shares.sum(0), torch.ones(4))
    assert (shares > 0).all()


# ── 0.34: principal components ────────────────────────────────────────────────────────────────────────────────────────

PCA = "vae.pca:principal_axes"


@pytest.mark.exercise("0.34")
@pytest.mark.parametrize("width", [1, 3])
def test_axes_are_those_of_greatest_variance(student, width):
    images = torch.randn(40, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) + 3
    mean, axes, variances, left_over = student(PCA, images=images, width=width)
    close(mean, images.mean(0))
    assert axes.shape == (5, width)
    close(axes.T @ axes, torch.eye(width))
    values, vectors = torch.linalg.eigh((images - images.mean(0)).T @ (images - images.mean(0)) / 40)
    greatest = vectors[:, -width:]
    close(axes @ axes.T, greatest @ greatest.T)
    close(variances, values.flip(0)[:width])
    close(left_over, values[:-width].mean())


@pytest.mark.exercise("0.34")
def test_fewer_images_than_pixels_leave_directions_without_variance(student):
    images = torch.randn(4, 9, dtype=torch.float64)
    _, _, variances, left_over = student(PCA, images=images, width=2)
    total = images.var(dim=0, correction=0).sum()
    close(variances.sum() + 7 * left_over, total)
