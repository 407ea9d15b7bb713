"""The Fréchet distance equals closed forms for known Gaussians, and another way to compute it."""

import math

import pytest
import torch

from shared.evaluation import frechet_distance, gaussian_frechet_distance


def random_covariance(width: int, generator: torch.Generator, rank: int | None = None) -> torch.Tensor:
    root = torch.randn(width, rank or width, generator=generator, dtype=torch.float64)
    return root @ root.T / width


def test_equal_gaussians_have_distance_zero():
    generator = torch.Generator().manual_seed(1)
    mean, covariance = torch.randn(64, generator=generator), random_covariance(64, generator)
    assert gaussian_frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-10)


def test_one_dimension_has_its_closed_form():
    """(m − m')² + (s − s')² for standard deviations s and s'."""
    distance = gaussian_frechet_distance(*(torch.tensor(value) for value in ([1.0], [[4.0]], [-2.0], [[0.25]])))
    assert distance == pytest.approx(3**2 + (2 - 0.5) ** 2, rel=1e-12)


def test_covariances_with_equal_axes_have_their_closed_form():
    """|m − m'|² + Σ (√a − √b)², where a and b are the variances along the common axes."""
    generator = torch.Generator().manual_seed(2)
    axes, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))
    a, b = torch.rand(2, 20, generator=generator, dtype=torch.float64)
    mean = torch.randn(20, generator=generator, dtype=torch.float64)
    covariances = [(axes * variances) @ axes.T for variances in (a, b)]
    expected = mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    distance = gaussian_frechet_distance(mean, covariances[0], torch.zeros(20), covariances[1])
    assert distance == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("rank", [None, 5])
def test_the_trace_of_the_root_equals_that_of_the_nonsymmetric_product(rank):
    """The eigenvalues of C C' are real and not negative, and the root's trace is the sum of their roots."""
    generator = torch.Generator().manual_seed(3)
    one, other = random_covariance(12, generator, rank), random_covariance(12, generator)
    eigenvalues = torch.linalg.eigvals(one @ other).real.clamp(min=0)
    expected = one.trace() + other.trace() - 2 * eigenvalues.sqrt().sum()
    zero = torch.zeros(12)
    assert gaussian_frechet_distance(zero, one, zero, other) == pytest.approx(expected.item(), abs=1e-5)
    assert gaussian_frechet_distance(zero, other, zero, one) == pytest.approx(expected.item(), abs=1e-5)


def test_samples_of_known_gaussians_come_near_the_exact_distance():
    generator = torch.Generator().manual_seed(4)
    one = torch.randn(20_000, 8, generator=generator)
    other = 2 * torch.randn(20_000, 8, generator=generator) + 1
    assert frechet_distance(one, other) == pytest.approx(8 * (1 + 1), rel=0.05)


def test_the_distance_between_samples_of_one_distribution_falls_with_their_number():
    """This is the bias: the exact distance is zero."""
    generator = torch.Generator().manual_seed(5)
    few, many = (
        frechet_distance(*(torch.randn(count, 16, generator=generator) for _ in range(2))) for count in (50, 5000)
    )
    assert few > 20 * many > 0


def test_the_distance_is_zero_for_one_set_and_does_not_depend_on_order():
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(40, 64, generator=generator)  # fewer rows than features: a singular covariance
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0, abs=1e-6)
    other = torch.randn(30, 64, generator=generator)
    assert frechet_distance(features, other) == pytest.approx(frechet_distance(other, features), rel=1e-6)
    assert frechet_distance(features[:, :1], features[:, :1] + 3) == pytest.approx(9, rel=1e-6)


def test_wrong_features_are_refused():
    good = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"the features: shape \[1, 3\]; expected at least two rows"):
        frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="features have width 3, the reference 2"):
        frechet_distance(good, good[:, :2])
    with pytest.raises(ValueError, match="the reference: some values are not finite"):
        frechet_distance(good, torch.full((5, 3), math.nan))
