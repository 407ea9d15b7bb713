"""The exercises of the part `vae`: each test checks a property that small mistakes break."""

import math

import pytest
import torch
from torch.distributions import Binomial, Normal, kl_divergence


def assert_close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


def gaussians(batch=4, width=3):
    return torch.randn(batch, width, dtype=torch.float64), torch.randn(batch, width, dtype=torch.float64)


# ── 0.30: sample with gradients ───────────────────────────────────────────────────────────────────────────────────────

REPARAMETERIZE = "vae.reference:reparameterize"


@pytest.mark.exercise("0.30")
def test_a_sample_has_the_requested_mean_and_variance(student):
    mean, log_variance = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[0.0, 2.0, -3.0]])
    noise = torch.randn(20_000, 3)
    samples = student(REPARAMETERIZE, mean=mean, log_variance=log_variance, noise=noise)
    assert samples.shape == (20_000, 3)
    std = (log_variance[0] / 2).exp()
    assert_close(samples.mean(0), mean[0] + std * noise.mean(0), 1e-4)
    assert_close(samples.std(0), std * noise.std(0), 1e-4)


@pytest.mark.exercise("0.30")
def test_without_noise_a_sample_is_the_mean(student):
    mean, log_variance = gaussians()
    assert_close(student(REPARAMETERIZE, mean=mean, log_variance=log_variance, noise=torch.zeros(4, 3)), mean)


@pytest.mark.exercise("0.30")
def test_a_sample_has_gradients_of_mean_and_variance(student):
    mean, log_variance = gaussians()
    noise, upstream = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    _, gradients = student(REPARAMETERIZE, upstream=upstream, mean=mean, log_variance=log_variance, noise=noise)
    assert_close(gradients["mean"], upstream)
    assert_close(gradients["log_variance"], upstream * noise * (log_variance / 2).exp() / 2)


# ── 0.31: the KL of a code ────────────────────────────────────────────────────────────────────────────────────────────

KL = "vae.reference:kl_divergence"


@pytest.mark.exercise("0.31")
def test_the_kl_is_that_of_two_gaussians(student):
    mean, log_variance = gaussians()
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(4, 3), 1.0)).sum(1)
    assert_close(student(KL, mean=mean, log_variance=log_variance), expected)


@pytest.mark.exercise("0.31")
def test_the_kl_is_zero_at_the_prior_and_positive_elsewhere(student):
    zero = torch.zeros(1, 2)
    assert_close(student(KL, mean=zero, log_variance=zero), torch.zeros(1))
    for mean, log_variance in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        kl = student(KL, mean=torch.full((1, 2), mean), log_variance=torch.full((1, 2), log_variance))
        assert kl.item() > 1e-3


@pytest.mark.exercise("0.31")
def test_the_gradient_of_the_kl_points_away_from_the_prior(student):
    mean, log_variance = gaussians()
    _, gradients = student(KL, upstream=torch.ones(4), mean=mean, log_variance=log_variance)
    assert_close(gradients["mean"], mean)
    assert_close(gradients["log_variance"], (log_variance.exp() - 1) / 2)


# ── 0.32: the likelihood of counts ────────────────────────────────────────────────────────────────────────────────────

LIKELIHOOD = "vae.model:binomial_log_likelihood"


@pytest.mark.exercise("0.32")
@pytest.mark.parametrize("trials", [1, 5, 16])
def test_counts_have_the_binomial_probability(student, trials):
    logits = torch.randn(3, 7, dtype=torch.float64) * 3
    counts = torch.randint(trials + 1, (3, 7)).double()
    expected = Binomial(trials, logits=logits).log_prob(counts).sum(-1)
    assert_close(student(LIKELIHOOD, logits=logits, counts=counts, trials=trials), expected)


@pytest.mark.exercise("0.32")
def test_the_probabilities_of_all_counts_sum_to_one(student):
    counts = torch.arange(17, dtype=torch.float64)[:, None]
    logits = torch.full((17, 1), 0.7, dtype=torch.float64)
    assert_close(student(LIKELIHOOD, logits=logits, counts=counts, trials=16).exp().sum(), torch.tensor(1.0))


@pytest.mark.exercise("0.32")
@pytest.mark.parametrize("size", [30.0, 500.0])
def test_confident_logits_give_zero_when_right_and_stay_finite_when_wrong(student, size):
    logits = torch.tensor([[size, -size], [-size, size]])
    counts = torch.tensor([[16.0, 0.0], [16.0, 0.0]])
    log_likelihoods = student(LIKELIHOOD, logits=logits, counts=counts, trials=16)
    assert_close(log_likelihoods, torch.tensor([0.0, -32 * size]), 1e-2)


@pytest.mark.exercise("0.32")
def test_the_gradient_is_the_observed_minus_the_expected_count(student):
    logits, counts = torch.randn(2, 5, dtype=torch.float64), torch.tensor([[0, 3, 8, 16, 9], [16, 1, 0, 4, 4]]).double()
    _, gradients = student(LIKELIHOOD, upstream=torch.ones(2), logits=logits, counts=counts, trials=16)
    assert_close(gradients["logits"], counts - 16 * logits.sigmoid())


# ── 0.33: a tighter bound ─────────────────────────────────────────────────────────────────────────────────────────────

BOUND = "vae.model:importance_weighted_bound"


def bound_arguments(samples=6, batch=4, width=3):
    mean, log_variance = gaussians(batch, width)
    codes = mean + (log_variance / 2).exp() * torch.randn(samples, batch, width, dtype=torch.float64)
    likelihoods = torch.randn(samples, batch, dtype=torch.float64) * 5 - 900
    return {"log_likelihoods": likelihoods, "codes": codes, "mean": mean, "log_variance": log_variance}


@pytest.mark.exercise("0.33")
def test_the_bound_is_the_log_of_the_mean_weight(student):
    arguments = bound_arguments()
    posterior = Normal(arguments["mean"], (arguments["log_variance"] / 2).exp())
    weights = Normal(0.0, 1.0).log_prob(arguments["codes"]).sum(-1) - posterior.log_prob(arguments["codes"]).sum(-1)
    # e^−900 underflows; the test factors out 900 before the exponential.
    expected = (weights + arguments["log_likelihoods"] + 900).exp().mean(0).log() - 900
    assert_close(student(BOUND, **arguments), expected)


@pytest.mark.exercise("0.33")
@pytest.mark.parametrize("samples", [1, 2, 50])
def test_with_the_true_posterior_the_bound_is_log_p_itself(student, samples):
    """z is N(0, 1) and x is N(z, 1): then z given x is N(x/2, 1/2), and x is N(0, 2)."""
    x = torch.tensor([-1.0, 0.3, 4.0], dtype=torch.float64)
    mean, log_variance = x[:, None] / 2, torch.full((3, 1), math.log(0.5), dtype=torch.float64)
    codes = mean + math.sqrt(0.5) * torch.randn(samples, 3, 1, dtype=torch.float64)
    likelihoods = -((x - codes[..., 0]) ** 2) / 2 - math.log(2 * math.pi) / 2
    bound = student(BOUND, log_likelihoods=likelihoods, codes=codes, mean=mean, log_variance=log_variance)
    assert_close(bound, -(x**2) / 4 - math.log(4 * math.pi) / 2)


@pytest.mark.exercise("0.33")
def test_every_sample_has_the_gradient_of_its_normalized_weight(student):
    arguments = bound_arguments()
    _, gradients = student(BOUND, upstream=torch.ones(4), **arguments)
    weights = gradients["log_likelihoods"]
    assert_close(weights.sum(0), torch.ones(4))
    assert (weights > 0).all()


# ── 0.34: principal components ────────────────────────────────────────────────────────────────────────────────────────

PCA = "vae.experiment.pca:principal_axes"


@pytest.mark.exercise("0.34")
@pytest.mark.parametrize("width", [1, 3])
def test_axes_are_those_of_largest_variance(student, width):
    images = torch.randn(40, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) + 3
    mean, axes, variances, remaining = student(PCA, images=images, width=width)
    assert_close(mean, images.mean(0))
    assert axes.shape == (5, width)
    assert_close(axes.T @ axes, torch.eye(width))
    values, vectors = torch.linalg.eigh((images - images.mean(0)).T @ (images - images.mean(0)) / 40)
    greatest = vectors[:, -width:]
    assert_close(axes @ axes.T, greatest @ greatest.T)
    assert_close(variances, values.flip(0)[:width])
    assert_close(remaining, values[:-width].mean())


@pytest.mark.exercise("0.34")
def test_fewer_images_than_pixels_leave_directions_without_variance(student):
    images = torch.randn(4, 9, dtype=torch.float64)
    _, _, variances, remaining = student(PCA, images=images, width=2)
    total = images.var(dim=0, correction=0).sum()
    assert_close(variances.sum() + 7 * remaining, total)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        LIKELIHOOD,
        {"logits": torch.ones(1, 5), "counts": torch.ones(1, 5), "trials": 2},
        [(1,)],
        marks=pytest.mark.exercise("0.32"),
    ),
    pytest.param(BOUND, bound_arguments(batch=1), [(1,)], marks=pytest.mark.exercise("0.33")),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
