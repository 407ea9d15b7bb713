"""The Fréchet distance between two sets of feature vectors, each described by a Gaussian (arXiv:1706.08500)."""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Return the Fréchet distance between two sets of features, computed in float64.

    features   [images, width]
    reference  [references, width], from the same encoder

    Each set is described by its mean and its covariance (divided by the number of rows − 1). The unit is that of a
    squared feature. With few rows the distance is too large, even between two samples of one distribution, by an amount
    that depends on both (arXiv:1911.07023). Compare distances of equally many rows only, and state the distance between
    two sets of real images beside them.

    Raises ValueError for less than two rows, for different widths, and for values that are not finite.
    """
    for name, rows in (("the features", features), ("the reference", reference)):
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"{name}: shape {list(rows.shape)}; expected at least two rows [images, width]")
        if not torch.isfinite(rows).all():
            raise ValueError(f"{name}: some values are not finite; look for NaN in the images")
    if features.shape[1] != reference.shape[1]:
        raise ValueError(
            f"features have width {features.shape[1]}, the reference {reference.shape[1]}; use one encoder for both"
        )
    return gaussian_frechet_distance(*_mean_and_covariance(features), *_mean_and_covariance(reference))


def _mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    rows = features.double()
    return rows.mean(dim=0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def gaussian_frechet_distance(
    mean: Float[Tensor, " width"],
    covariance: Float[Tensor, "width width"],
    other_mean: Float[Tensor, " width"],
    other_covariance: Float[Tensor, "width width"],
) -> float:
    """Return |m − m'|² + tr(C + C' − 2 (C C')^½) for two Gaussians, computed in float64 (arXiv:1706.08500, eq. 6).

    The trace of the square root of C C' is the sum of the singular values of C^½ C'^½. Both roots are of symmetric
    matrices, and no root of a nonsymmetric matrix is needed.
    """
    roots = _symmetric_root(covariance.double()) @ _symmetric_root(other_covariance.double())
    squared = (mean.double() - other_mean.double()).square().sum()
    traces = covariance.double().trace() + other_covariance.double().trace()
    return max(0.0, (squared + traces - 2 * torch.linalg.svdvals(roots).sum()).item())


def _symmetric_root(matrix: Tensor) -> Tensor:
    """Return the symmetric square root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
