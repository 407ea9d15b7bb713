"""Principal components of equal width, with a Gaussian in them: the model that a VAE must beat.

Probabilistic PCA (Tipping & Bishop, 1999): x = mean + W z + σ ε, with z and ε standard normal. It is an autoencoder, too, and one
with an answer in closed form: both of its halves are matrices, and singular value decomposition finds the best ones.
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
    """Mean; the `width` directions in which images vary most, as orthonormal columns; the variance along each; and the mean
    variance along all that are left.

    Raises ValueError when fewer directions are left than one.
    """
    if not 1 <= width < min(images.shape):
        raise ValueError(
            f"{width} axes of {images.shape[0]} images of {images.shape[1]} pixels; choose fewer than both"
        )
    # exercise 0.34: principal components
    mean = images.mean(dim=0)
    # images − mean = U S Vᵀ: the columns of V are the axes, and S² / n is how much the images vary along them.
    _, spread, axes = torch.linalg.svd(images - mean, full_matrices=False)
    variances = spread**2 / len(images)
    left_over = variances[width:].sum() / (images.shape[1] - width)
    return mean, axes[:width].T, variances[:width], left_over
    # end exercise


@dataclass(frozen=True)
class GaussianInPCA:
    """Probabilistic PCA at its most likely parameters (Tipping & Bishop, 1999, eq. 7 and 8)."""

    mean: Float[Tensor, " pixels"]
    axes: Float[Tensor, "pixels width"]
    variances: Float[Tensor, " width"]
    noise: Float[Tensor, ""]
    """σ²: the variance that every pixel has beside what the axes explain."""
    trials: int = 16

    @classmethod
    def fit(cls, images: Images, width: int) -> "GaussianInPCA":
        return cls(*principal_axes(images, width))

    @property
    def loadings(self) -> Float[Tensor, "pixels width"]:
        """W: the axes, so long that with the noise added the variance along each is right."""
        return self.axes * (self.variances - self.noise).clamp_min(0).sqrt()

    def reconstruct(self, images: Images) -> Images:
        """The nearest point of the plane that the axes span: of all linear autoencoders the best in the mean square."""
        return self.mean + (images - self.mean) @ self.axes @ self.axes.T

    def sample(self, count: int, generator: Generator, *, grain: bool = False) -> Images:
        """New images, brought into the range that a pixel has: points of the plane, or with `grain` the whole model, rounded to counts."""
        codes = torch.randn(count, len(self.variances), generator=generator, dtype=self.mean.dtype)
        if not grain:
            return (self.mean + codes * self.variances.sqrt() @ self.axes.T).clamp(0, self.trials)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        whole = self.mean + codes @ self.loadings.T + self.noise.sqrt() * noise
        return whole.round().clamp(0, self.trials)

    def posterior(self, images: Images) -> tuple[Codes, Codes]:
        """Mean and log-variance of each image's code (Tipping & Bishop, eq. 6): the best encoder there is, known in closed form."""
        scale = (self.loadings**2).sum(dim=0) + self.noise
        mean = (images - self.mean) @ self.loadings / scale
        return mean, (self.noise / scale).log().expand_as(mean)

    def log_likelihood(self, images: Images, samples: int, generator: Generator) -> Float[Tensor, " batch"]:
        """The importance-weighted bound on the log of the probability of an image's counts, in nats.

        The counts are what `sample` with grain gives: rounded, and cut at 0 and `trials`. So this is a probability of the
        same numbers as the VAE's, and the two can be compared; a density could not.
        """
        mean, log_variance = self.posterior(images)
        noise = torch.randn(samples, *mean.shape, generator=generator, dtype=mean.dtype)
        codes = reparameterize(mean, log_variance, noise)
        likelihoods = rounded_normal_log_likelihood(
            self.mean + codes @ self.loadings.T, self.noise.sqrt(), images, self.trials
        )
        return importance_weighted_bound(likelihoods, codes, mean, log_variance)


def rounded_normal_log_likelihood(
    mean: Float[Tensor, "samples batch pixels"], deviation: Float[Tensor, ""], counts: Images, trials: int
) -> Float[Tensor, "samples batch"]:
    """log of the probability that normal draws, rounded and cut at 0 and `trials`, are `counts`; summed over pixels."""
    edge = torch.full_like(counts, torch.inf)
    upper = torch.where(counts == trials, edge, (counts + 0.5)) - mean
    lower = torch.where(counts == 0, -edge, (counts - 0.5)) - mean
    # Far out in the upper tail both areas round to 1 and their difference to 0; mirrored, it is in the lower, where they don't.
    flip = lower > 0
    upper, lower = torch.where(flip, -lower, upper) / deviation, torch.where(flip, -upper, lower) / deviation
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return (log_upper + torch.log1p(-(log_lower - log_upper).exp())).sum(dim=-1)
