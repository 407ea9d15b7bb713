"""Which parameter is moved by which optimizer, and which ones decay."""

import fnmatch

import torch
from torch import nn

from shared.training.muon import Muon

# Muon is for the hidden matrices. What reads the input or writes the output stays with AdamW, by name.
OUTER_LAYERS = ("*embed*", "*head*")


def decaying(model: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to: the weights of linear layers and convolutions.

    Biases, norms' gains, class tokens and position tables (a `.weight` they are not, or a vector) must be free
    to sit away from zero; and an embedding that is rarely looked up would fade at every step in which it isn't.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.ndim >= 2 and id(parameter) not in embeddings
    }


def hidden_matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that Muon moves: decaying matrices that are neither first nor last layer."""
    parameters = dict(model.named_parameters())
    return {
        name
        for name in decaying(model)
        if parameters[name].ndim == 2 and not any(fnmatch.fnmatch(name, pattern) for pattern in OUTER_LAYERS)
    }


def parameter_groups(model: nn.Module, names: set[str], weight_decay: float) -> list[dict]:
    """Split the named parameters in two groups: those that decay and those that don't."""
    matrices = decaying(model)
    chosen = [(name, parameter) for name, parameter in model.named_parameters() if name in names]
    groups = [
        {"params": [parameter for name, parameter in chosen if name in matrices], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in chosen if name not in matrices], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizers(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """Return the optimizers that together move every parameter of `model`, each parameter by exactly one.

    "adamw": decoupled weight decay (arXiv:1711.05101). "muon": Muon on hidden matrices, AdamW on the rest.
    "sgd": Nesterov momentum of `betas[0]`, with plain (coupled) weight decay.
    A parameter without a gradient, because a stage froze it, is left alone to the bit, decay included.
    """
    everything = {name for name, _ in model.named_parameters()}
    if name == "adamw":
        return [_adamw(parameter_groups(model, everything, weight_decay), learning_rate, betas)]
    if name == "muon":
        hidden = hidden_matrices(model)
        optimizers: list[torch.optim.Optimizer] = []
        if hidden:
            optimizers.append(Muon(parameter_groups(model, hidden, weight_decay), learning_rate))
        if everything - hidden:
            optimizers.append(_adamw(parameter_groups(model, everything - hidden, weight_decay), learning_rate, betas))
        return optimizers
    if name == "sgd":
        groups = parameter_groups(model, everything, weight_decay)
        return [torch.optim.SGD(groups, learning_rate, momentum=betas[0], nesterov=betas[0] > 0)]
    raise ValueError(f"no optimizer called {name!r}; there are adamw, muon and sgd")


def _adamw(groups: list[dict], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    # Fused: one kernel walks all parameters, several times faster on the small ones of a lesson.
    return torch.optim.AdamW(groups, learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
