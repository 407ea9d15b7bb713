"""The same network in PyTorch, which does the walk back for us; and three ways of taking a step."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class MultilayerPerceptron(nn.Module):
    """Images [batch, 64] → logits [batch, 10], through one layer of `hidden` neurons."""

    def __init__(self, hidden: int, pixels: int = 64, classes: int = 10):
        super().__init__()
        self.first = nn.Linear(pixels, hidden)
        self.second = nn.Linear(hidden, classes)

    def forward(self, images: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch classes"]:
        return self.second(torch.tanh(self.first(images)))


def momentum_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    velocity: Float[Tensor, "*shape"],
    learning_rate: float,
    momentum: float,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Weight and velocity after one step of gradient descent with momentum (Polyak, 1964), as `torch.optim.SGD` counts it."""
    # exercise 0.3: a step with momentum
    velocity = momentum * velocity + gradient
    return weight - learning_rate * velocity, velocity
    # end exercise


def adam_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    mean: Float[Tensor, "*shape"],
    square: Float[Tensor, "*shape"],
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Weight and both running means after step number `step` (from 1) of Adam (arXiv:1412.6980, algorithm 1)."""
    # exercise 0.4: a step of Adam
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient**2
    # Both means start at 0 and are too small at first; dividing by what they can have gathered so far puts that right.
    steady_mean, steady_square = mean / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
    return weight - learning_rate * steady_mean / (steady_square.sqrt() + eps), mean, square
    # end exercise


def accuracy(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()
