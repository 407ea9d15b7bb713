"""The baselines of the part `vae`: the Gaussian in principal components, and the classifier that scores samples."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal

from lessons.lesson_00_foundations.vae.experiment.classifier import DigitClassifier, frechet_distance, score_images
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA, rounded_normal_log_likelihood


def generator():
    return torch.Generator().manual_seed(0)


# ── The Gaussian in principal components ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cloud():
    return torch.randn(300, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64) * 2 + 8


def test_too_many_components_are_an_error():
    with pytest.raises(ValueError, match="fewer"):
        GaussianInPCA.fit(torch.randn(10, 4), 4)


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
    """Far from the limits and with wide noise, a count has about the probability of the density at it."""
    model = replace(GaussianInPCA.fit(cloud * 4, 2), trials=1000)
    images = (cloud[:20] * 4).round()
    covariance = model.loadings @ model.loadings.T + model.noise * torch.eye(5)
    expected = MultivariateNormal(model.mean, covariance).log_prob(images)
    keep = images.amin(1) > 1
    bound = model.log_likelihood(images, 500, generator())
    torch.testing.assert_close(bound[keep], expected[keep], atol=0.02, rtol=0)


@pytest.mark.parametrize("center", [-60.0, 3.3, 16.2, 90.0])
def test_rounded_and_clamped_normals_have_probabilities_that_sum_to_one(center):
    counts = torch.arange(17, dtype=torch.float64)[:, None]
    mean = torch.full((1, 17, 1), center, dtype=torch.float64)
    logs = rounded_normal_log_likelihood(mean, torch.tensor(1.5, dtype=torch.float64), counts, 16)
    assert logs.isfinite().all()
    assert logs.exp().sum().item() == pytest.approx(1.0)


def test_its_samples_have_the_mean_and_covariance_of_the_data(cloud):
    inside = replace(GaussianInPCA.fit(cloud / 4 + 500, 2), trials=1000)
    noisy = inside.sample(20_000, generator(), pixel_noise=True)
    assert (noisy == noisy.round()).all()
    covariance = inside.loadings @ inside.loadings.T + inside.noise * torch.eye(5)
    # Rounding to integers adds a variance of 1/12.
    torch.testing.assert_close(noisy.T.cov(), covariance + torch.eye(5) / 12, atol=0.15, rtol=0.05)
    projected = (inside.sample(20_000, generator()) - inside.mean) @ inside.axes
    torch.testing.assert_close(projected.var(0), inside.variances, atol=0.0, rtol=0.05)


# ── The classifier ────────────────────────────────────────────────────────────────────────────────────────────────────


class Identity(DigitClassifier):
    """A classifier whose logits and features are its input."""

    def forward(self, images):
        return images

    features = forward


def test_the_score_is_high_for_confident_predictions_of_all_classes():
    confident = 50.0 * torch.eye(10).repeat(5, 1)
    real = torch.randn(50, 10)
    names = ("confidence", "classes", "inception_score")
    scores = score_images(Identity(), confident, real)
    assert [scores[name] for name in names] == pytest.approx([1, 10, 10])
    scores = score_images(Identity(), confident[:1].expand(50, -1), real)
    assert [scores[name] for name in names] == pytest.approx([1, 1, 1])
    scores = score_images(Identity(), torch.zeros(50, 10), real)
    assert [scores[name] for name in names] == pytest.approx([0.1, 10, 1])


def test_the_frechet_distance_is_that_of_two_gaussians():
    cloud = torch.randn(400, 3, dtype=torch.float64)
    cloud = (cloud - cloud.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(cloud.T.cov())).T
    assert frechet_distance(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(cloud, cloud + torch.tensor([1.0, 2.0, 2.0])) == pytest.approx(9)
    # Along each axis (σ₁ − σ₂)².
    assert frechet_distance(cloud, cloud * torch.tensor([3.0, 1.0, 0.5])) == pytest.approx(4 + 0.25)
