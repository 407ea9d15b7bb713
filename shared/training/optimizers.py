"""Optimizers, and which parameters each of them updates and decays."""

import fnmatch

import torch
from torch import nn

from shared.training.muon import Muon

# Muon is for the matrices between input and output. Layers with these names stay with AdamW.
INPUT_AND_OUTPUT_LAYERS = ("*embed*", "*head*")


def decayed_parameters(model: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay applies to: weights of linear and convolution layers.

    Biases, norm gains, class tokens and position tables must be free to differ from zero. An embedding that is rarely
    looked up would shrink at every step in which it is not.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight") and parameter.ndim >= 2 and id(parameter) not in embeddings
    }


def muon_parameters(model: nn.Module) -> set[str]:
    """Return the names of the parameters that Muon updates: decayed matrices outside the first and last layers."""
    parameters = dict(model.named_parameters())
    return {
        name
        for name in decayed_parameters(model)
        if parameters[name].ndim == 2 and not any(fnmatch.fnmatch(name, pattern) for pattern in INPUT_AND_OUTPUT_LAYERS)
    }


def parameter_groups(model: nn.Module, names: set[str], weight_decay: float) -> list[dict]:
    """Split the named parameters into two groups: with and without weight decay."""
    decayed = decayed_parameters(model)
    selected = [(name, parameter) for name, parameter in model.named_parameters() if name in names]
    groups = [
        {"params": [parameter for name, parameter in selected if name in decayed], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in selected if name not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizers(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """Return optimizers that together update every parameter of `model`, each parameter by exactly one of them.

    "adamw"  decoupled weight decay (arXiv:1711.05101)
    "muon"   Muon on the matrices inside the network, AdamW on the rest
    "sgd"    Nesterov momentum of `betas[0]`, with plain (coupled) weight decay

    A parameter without a gradient, because a stage froze it, does not change at all; it does not even decay.
    Raises ValueError for another name.
    """
    all_names = {name for name, _ in model.named_parameters()}
    if name == "adamw":
        return [_adamw(parameter_groups(model, all_names, weight_decay), learning_rate, betas)]
    if name == "muon":
        matrices = muon_parameters(model)
        optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            optimizers.append(Muon(parameter_groups(model, matrices, weight_decay), learning_rate))
        if all_names - matrices:
            optimizers.append(_adamw(parameter_groups(model, all_names - matrices, weight_decay), learning_rate, betas))
        return optimizers
    if name == "sgd":
        groups = parameter_groups(model, all_names, weight_decay)
        return [torch.optim.SGD(groups, learning_rate, momentum=betas[0], nesterov=betas[0] > 0)]
    raise ValueError(f"optimizer {name!r} does not exist; choose adamw, muon or sgd")


def _adamw(groups: list[dict], learning_rate: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    # Fused: one kernel updates all parameters, several times faster for a lesson's many small ones.
    return torch.optim.AdamW(groups, learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
