"""The gradient through time: how strongly the last output of a layer depends on its earlier states."""

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_00_foundations.recurrent.model import Recurrent


def states_through_time(layer: Recurrent, inputs: Float[Tensor, "batch time inputs"]) -> list[tuple[Tensor, ...]]:
    """Return the state after each step, as tensors that retain their gradient."""
    state, states = layer.initial_state(len(inputs)), []
    for projected in layer.project(inputs).unbind(dim=1):
        state = layer.step(projected, state)
        for part in state:
            part.retain_grad()
        states.append(state)
    return states


def gradient_through_time(layer: Recurrent, inputs: Float[Tensor, "batch time inputs"]) -> list[float]:
    """Return the gradient norm of the last output by the state after each step, relative to the norm at the last step.

    The last output is projected on a random direction. Norms are taken over the whole state (h, or h and c) and
    averaged over the batch.
    """
    states = states_through_time(layer, inputs)
    last = states[-1][0]
    direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(0), dtype=last.dtype)
    (last * direction).sum().backward()
    norms = []
    for state in states:
        gradients = [part.grad for part in state if part.grad is not None]
        norms.append(torch.cat(gradients, dim=1).norm(dim=1).mean().item())
    layer.zero_grad(set_to_none=True)
    return [norm / norms[-1] for norm in norms]


def jacobian_through_time(
    outputs: Float[Tensor, "time hidden"], weight_hh: Float[Tensor, "hidden hidden"]
) -> Float[Tensor, "hidden hidden"]:
    """Return the Jacobian of an RNN's last state by the state before the first of `outputs`: [last, before].

    It is a product with one factor per step (Bengio et al. 1994, section III): the Jacobian of h' = tanh(… + W_hh h)
    by h is diag(1 - h'²) W_hh. When these factors shrink vectors, the product shrinks exponentially with time.
    """
    # exercise 0.24: the product of Jacobians
    product = torch.eye(outputs.shape[1], dtype=outputs.dtype)
    for after in outputs:
        product = (1 - after**2)[:, None] * weight_hh @ product
    return product
    # end exercise
