"""Probabilistic PCA: principal components of equal width with a Gaussian prior, the baseline of the VAE.

Probabilistic PCA (Tipping & Bishop, 1999) is the model x = mean + W z + σ ε with z and ε standard normal. It is a
linear autoencoder whose optimum has a closed form: singular value decomposition gives encoder and decoder.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from lessons.lesson_00_foundations.vae.model import importance_weighted_bound, reparameterize

Images = Float[Tensor, "batch pixels"]
Codes = Float[Tensor, "batch width"]


def principal_axes(
    images: Images, width: int
) -> tuple[Float[Tensor, " pixels"], Float[Tensor, "pixels width"], Float[Tensor, " width"], Float[Tensor, ""]]:
    """Return the principal components of images.

    The result holds the mean, the `width` directions of largest variance as orthonormal columns, the variance along
    each, and the mean variance along the remaining directions. Raises ValueError when no direction remains.
    """
    if not 1 <= width < min(images.shape):
        raise ValueError(
            f"{width} axes of {images.shape[0]} images of {images.shape[1]} pixels; choose fewer than both"
        )
    # exercise 0.34: principal components
    mean = images.mean(dim=0)
    # images − mean = U S Vᵀ: the columns of V are the axes, and S² / n are the variances along them.
    _, singular_values, axes = torch.linalg.svd(images - mean, full_matrices=False)
    variances = singular_values**2 / len(images)
    remaining_variance = variances[width:].sum() / (images.shape[1] - width)
    return mean, axes[:width].T, variances[:width], remaining_variance
    # end exercise


@dataclass(frozen=True)
class GaussianInPCA:
    """Probabilistic PCA at its maximum likelihood parameters (Tipping & Bishop, 1999, eq. 7 and 8).

    `noise` is σ², the variance of every pixel that the axes do not explain.
    """

    mean: Float[Tensor, " pixels"]
    axes: Float[Tensor, "pixels width"]
    variances: Float[Tensor, " width"]
    noise: Float[Tensor, ""]
    trials: int = 16

    @classmethod
    def fit(cls, images: Images, width: int) -> "GaussianInPCA":
        """Fit the model to images with `width` components."""
        return cls(*principal_axes(images, width))

    @property
    def loadings(self) -> Float[Tensor, "pixels width"]:
        """W: the axes, scaled so that with the noise added the variance along each is the data's."""
        return self.axes * (self.variances - self.noise).clamp_min(0).sqrt()

    def reconstruct(self, images: Images) -> Images:
        """Project images on the plane of the axes; no linear autoencoder has a smaller mean squared error."""
        return self.mean + (images - self.mean) @ self.axes @ self.axes.T

    def sample(self, count: int, generator: Generator, *, pixel_noise: bool = False) -> Images:
        """Return new images, clamped to the range of a pixel.

        They are points of the plane, or with `pixel_noise` samples of the full model, rounded to counts.
        """
        codes = torch.randn(count, len(self.variances), generator=generator, dtype=self.mean.dtype)
        if not pixel_noise:
            return (self.mean + codes * self.variances.sqrt() @ self.axes.T).clamp(0, self.trials)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        images = self.mean + codes @ self.loadings.T + self.noise.sqrt() * noise
        return images.round().clamp(0, self.trials)

    def posterior(self, images: Images) -> tuple[Codes, Codes]:
        """Return mean and log-variance of each image's code: the exact posterior (Tipping & Bishop, eq. 6)."""
        scale = (self.loadings**2).sum(dim=0) + self.noise
        mean = (images - self.mean) @ self.loadings / scale
        return mean, (self.noise / scale).log().expand_as(mean)

    def log_likelihood(self, images: Images, samples: int, generator: Generator) -> Float[Tensor, " batch"]:
        """Return the importance-weighted bound on the log-probability of each image's counts, in nats.

        The counts are those that `sample` returns with pixel noise: rounded, and clamped to 0 … `trials`. So this is a
        probability of the same integers as the VAE's, and comparable to it; a density would not be.
        """
        mean, log_variance = self.posterior(images)
        noise = torch.randn(samples, *mean.shape, generator=generator, dtype=mean.dtype)
        codes = reparameterize(mean, log_variance, noise)
        likelihoods = rounded_normal_log_likelihood(
            self.mean + codes @ self.loadings.T, self.noise.sqrt(), images, self.trials
        )
        return importance_weighted_bound(likelihoods, codes, mean, log_variance)


def rounded_normal_log_likelihood(
    mean: Float[Tensor, "samples batch pixels"], std: Float[Tensor, ""], counts: Images, trials: int
) -> Float[Tensor, "samples batch"]:
    """Return the log-probability that normal samples, rounded and clamped to 0 … `trials`, are `counts`.

    It is summed over pixels.
    """
    edge = torch.full_like(counts, torch.inf)
    upper = torch.where(counts == trials, edge, (counts + 0.5)) - mean
    lower = torch.where(counts == 0, -edge, (counts - 0.5)) - mean
    # Far in the upper tail both cumulative probabilities round to 1 and their difference to 0. The mirrored interval in
    # the lower tail has the same probability and no such rounding.
    mirror = lower > 0
    upper, lower = torch.where(mirror, -lower, upper) / std, torch.where(mirror, -upper, lower) / std
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return (log_upper + torch.log1p(-(log_lower - log_upper).exp())).sum(dim=-1)
