"""Rectified flow: a velocity field that moves noise to data along straight lines (arXiv:2209.03003, section 2.1).

    x_t = (1 − t) · data + t · noise        velocity: d x_t / dt = noise − data

A network learns the velocity at x_t. Sampling starts at noise, t = 1, and follows the learned velocity to t = 0.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From x_t [batch, …] and times [batch] to the velocity [batch, …]."""


def interpolate(
    data: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], times: Float[Tensor, "batch"]
) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]:
    """Return x_t on the straight line from data (t = 0) to noise (t = 1), and the velocity there."""
    # exercise 12.10: the straight line and its velocity
    t = times.reshape(-1, *[1] * (data.ndim - 1))
    return (1 - t) * data + t * noise, noise - data
    # end exercise


def flow_loss(
    velocity: Velocity, data: Float[Tensor, "batch *shape"], generator: torch.Generator | None = None
) -> Float[Tensor, ""]:
    """Return the mean squared error of the velocity at uniformly random times (eq. 1).

    generator  random generator on the CPU, of the noise and of the times
    """
    noise = torch.randn(data.shape, generator=generator).to(data)
    times = torch.rand(len(data), generator=generator).to(data)
    x, target = interpolate(data, noise, times)
    return F.mse_loss(velocity(x, times), target)


def euler_step(
    x: Float[Tensor, "batch *shape"], velocity: Float[Tensor, "batch *shape"], start: float, end: float
) -> Float[Tensor, "batch *shape"]:
    """Return x at time `end`, along the velocity that it has at time `start`."""
    # exercise 12.11: one step along the velocity
    return x + (end - start) * velocity
    # end exercise


@torch.no_grad()
def sample_flow(velocity: Velocity, noise: Float[Tensor, "batch *shape"], steps: int) -> Float[Tensor, "batch *shape"]:
    """Return data from noise by Euler's method with equal steps. Raises ValueError for less than one step."""
    if steps < 1:
        raise ValueError(f"{steps} steps; expected at least 1")
    x = noise
    for step in range(steps, 0, -1):
        start, end = step / steps, (step - 1) / steps
        x = euler_step(x, velocity(x, x.new_full((len(x),), start)), start, end)
    return x


def guided_velocity(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Return unconditional + scale · (conditional − unconditional), as for logits (arXiv:2207.12598)."""

    def velocity(x: Tensor, times: Tensor) -> Tensor:
        without = unconditional(x, times)
        return without + scale * (conditional(x, times) - without)

    return velocity
