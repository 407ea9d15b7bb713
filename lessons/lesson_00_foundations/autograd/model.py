"""The multilayer perceptron in PyTorch, and single optimizer steps written by hand."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class MultilayerPerceptron(nn.Module):
    """Classify images [batch, 64] with one hidden layer of `mlp_dim` units; return logits [batch, 10]."""

    def __init__(self, mlp_dim: int, pixels: int = 64, classes: int = 10):
        super().__init__()
        self.first = nn.Linear(pixels, mlp_dim)
        self.second = nn.Linear(mlp_dim, classes)

    def forward(self, images: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch classes"]:
        return self.second(torch.tanh(self.first(images)))


def momentum_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    velocity: Float[Tensor, "*shape"],
    learning_rate: float,
    momentum: float,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return weight and velocity after one step of gradient descent with momentum (Polyak, 1964).

    The step is defined as in `torch.optim.SGD`.
    """
    # exercise 0.3: a step with momentum
    velocity = momentum * velocity + gradient
    return weight - learning_rate * velocity, velocity
    # end exercise


def adam_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    moments: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return weight and both moments after step number `step` (from 1) of Adam (arXiv:1412.6980, algorithm 1).

    `moments` are the running means of the gradient and of its square.
    """
    mean, square = moments
    # exercise 0.4: a step of Adam
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient**2
    # Both moments start at 0, so they are biased toward 0 at first; this division corrects the bias.
    corrected_mean, corrected_square = mean / (1 - betas[0] ** step), square / (1 - betas[1] ** step)
    return weight - learning_rate * corrected_mean / (corrected_square.sqrt() + eps), mean, square
    # end exercise


def accuracy(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> float:
    """Return the fraction of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()
