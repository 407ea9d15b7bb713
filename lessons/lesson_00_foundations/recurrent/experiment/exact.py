"""Exact checks of the part `recurrent`, before any training.

The layers equal PyTorch's, and the gradient through time of an RNN is a product of Jacobians.
"""

from random import Random

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lessons.lesson_00_foundations.recurrent import reference
from lessons.lesson_00_foundations.recurrent.experiment.gradients import jacobian_through_time, states_through_time
from lessons.lesson_00_foundations.recurrent.model import LSTM, RNN, Recurrent
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

LENGTHS = (7, 3, 1, 5)


def check_cells(context: RunContext) -> dict:
    """Return the largest absolute differences between computations that must agree."""
    torch.manual_seed(context.seed)
    return {
        "rnn_difference": max(layer_difference(RNN, nn.RNN, lengths) for lengths in (None, LENGTHS)),
        "lstm_difference": max(layer_difference(LSTM, nn.LSTM, lengths) for lengths in (None, LENGTHS)),
        "reference_difference": max(
            reference_difference(LSTM, reference.LSTMCell, context.seed),
            reference_difference(RNN, reference.RNNCell, context.seed),
        ),
        "jacobian_difference": jacobian_difference(),
    }


def layer_difference(
    layer_class: type[Recurrent], torch_class: type[nn.Module], lengths: tuple[int, ...] | None
) -> float:
    """Compare a layer with PyTorch's of equal weights: outputs, last states, gradients of inputs and weights."""
    layer, torch_layer = layer_class(3, 5).double(), torch_class(3, 5, batch_first=True).double()
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            getattr(torch_layer, f"{name}_l0").copy_(parameter.normal_(std=0.5))
    inputs = torch.randn(len(LENGTHS), max(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    length_tensor = None if lengths is None else torch.tensor(lengths)
    outputs, state = layer(inputs, length_tensor)
    if lengths is None:
        expected, torch_state = torch_layer(inputs)
    else:
        packed = pack_padded_sequence(inputs, length_tensor, batch_first=True, enforce_sorted=False)
        packed_outputs, torch_state = torch_layer(packed)
        expected, _ = pad_packed_sequence(packed_outputs, batch_first=True)
    torch_state = torch_state if isinstance(torch_state, tuple) else (torch_state,)
    upstream = torch.randn_like(expected), *(torch.randn_like(part) for part in torch_state)

    def gradients(results: tuple[Tensor, ...], layer: nn.Module) -> tuple[Tensor, ...]:
        total = sum((result * up.reshape(result.shape)).sum() for result, up in zip(results, upstream, strict=True))
        return torch.autograd.grad(total, [inputs, *(parameter for _, parameter in sorted(layer.named_parameters()))])

    pairs = [(outputs, expected), *zip(state, (part[0] for part in torch_state), strict=True)]
    torch_gradients = gradients((expected, *torch_state), torch_layer)
    pairs += zip(gradients((outputs, *state), layer), torch_gradients, strict=True)
    return max(max_abs_difference(one, other) for one, other in pairs)


def reference_difference(layer_class: type[Recurrent], cell_class: type[reference.RNNCell], seed: int) -> float:
    """Compare the pure-Python cell with the layer: last states, gradients of inputs and weights."""
    layer, cell = layer_class(3, 4).double(), cell_class(3, 4, Random(seed))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    cell.load_parameters({name: parameter.flatten().tolist() for name, parameter in layer.named_parameters()})
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    steps = [to_stdlib(step, requires_grad=True) for step in inputs.unbind(dim=1)]
    _, state = layer(inputs)
    plain_state = reference.unroll(cell, steps)
    upstream = [torch.randn_like(part) for part in state]
    sum((part * up).sum() for part, up in zip(state, upstream, strict=True)).backward()
    total = sum((part * to_stdlib(up)).sum() for part, up in zip(plain_state, upstream, strict=True))
    total.backward()
    pairs = [(to_torch(one), other) for one, other in zip(plain_state, state, strict=True)]
    pairs += [(step.grad, inputs.grad[:, index]) for index, step in enumerate(steps)]
    weights = cell.parameters()
    pairs += [(weights[name].grad, parameter.grad) for name, parameter in layer.named_parameters()]
    return max(max_abs_difference(one, other) for one, other in pairs)


def jacobian_difference() -> float:
    """Compare the product of Jacobians with autograd's derivative of the last state by the first."""
    layer, inputs = RNN(2, 6, orthogonal=True).double(), torch.randn(1, 12, 2, dtype=torch.float64)
    states = states_through_time(layer, inputs)
    outputs = torch.cat([state[0] for state in states])
    rows = [torch.autograd.grad(outputs[-1, row], states[0][0], retain_graph=True)[0][0] for row in range(6)]
    return max_abs_difference(jacobian_through_time(outputs[1:], layer.weight_hh), torch.stack(rows))
