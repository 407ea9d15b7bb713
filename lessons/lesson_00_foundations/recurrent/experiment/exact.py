"""What must hold to rounding, before anything is trained: the layers are PyTorch's, and the chain rule through time is a product."""

from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lessons.lesson_00_foundations.recurrent import reference
from lessons.lesson_00_foundations.recurrent.experiment.recall import jacobian_through_time, states_through_time
from lessons.lesson_00_foundations.recurrent.model import LSTM, RNN, Recurrent
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch

LENGTHS = (7, 3, 1, 5)


def check_cells(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """Largest absolute differences between things that the part says are the same (data, folder and resume are not used)."""
    torch.manual_seed(seed)
    return {
        "rnn_difference": max(layer_difference(RNN, nn.RNN, lengths) for lengths in (None, LENGTHS)),
        "lstm_difference": max(layer_difference(LSTM, nn.LSTM, lengths) for lengths in (None, LENGTHS)),
        "reference_difference": max(
            reference_difference(LSTM, reference.LSTMCell, seed), reference_difference(RNN, reference.RNNCell, seed)
        ),
        "jacobian_difference": jacobian_difference(),
    }


def layer_difference(kind: type[Recurrent], torchs: type[nn.Module], lengths: tuple[int, ...] | None) -> float:
    """A layer against PyTorch's of the same weights: what is shown, last states, and gradients of inputs and weights."""
    ours, theirs = kind(3, 5).double(), torchs(3, 5, batch_first=True).double()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            getattr(theirs, f"{name}_l0").copy_(parameter.normal_(std=0.5))
    inputs = torch.randn(len(LENGTHS), max(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    long = None if lengths is None else torch.tensor(lengths)
    shown, state = ours(inputs, long)
    if lengths is None:
        expected, last = theirs(inputs)
    else:
        packed, last = theirs(pack_padded_sequence(inputs, long, batch_first=True, enforce_sorted=False))
        expected, _ = pad_packed_sequence(packed, batch_first=True)
    last = last if isinstance(last, tuple) else (last,)
    upstream = torch.randn_like(expected), *(torch.randn_like(part) for part in last)

    def gradients(outputs: tuple[Tensor, ...], layer: nn.Module) -> tuple[Tensor, ...]:
        total = sum((output * up.reshape(output.shape)).sum() for output, up in zip(outputs, upstream, strict=True))
        return torch.autograd.grad(total, [inputs, *(parameter for _, parameter in sorted(layer.named_parameters()))])

    pairs = [(shown, expected), *zip(state, (part[0] for part in last), strict=True)]
    pairs += zip(gradients((shown, *state), ours), gradients((expected, *last), theirs), strict=True)
    return max(max_abs_difference(one, other) for one, other in pairs)


def reference_difference(kind: type[Recurrent], plain_kind: type[reference.RNNCell], seed: int) -> float:
    """The pure-Python cell, step by step, against the layer: last states, and gradients of inputs and weights."""
    layer, plain = kind(3, 4).double(), plain_kind(3, 4, Random(seed))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in layer.named_parameters()})
    inputs = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    steps = [to_stdlib(step, requires_grad=True) for step in inputs.unbind(dim=1)]
    _, state = layer(inputs)
    plain_state = reference.unroll(plain, steps)
    upstream = [torch.randn_like(part) for part in state]
    sum((part * up).sum() for part, up in zip(state, upstream, strict=True)).backward()
    total = sum((part * to_stdlib(up)).sum() for part, up in zip(plain_state, upstream, strict=True))
    total.backward()
    pairs = [(to_torch(one), other) for one, other in zip(plain_state, state, strict=True)]
    pairs += [(step.grad, inputs.grad[:, place]) for place, step in enumerate(steps)]
    parameters = plain.parameters()
    pairs += [(parameters[name].grad, parameter.grad) for name, parameter in layer.named_parameters()]
    return max(max_abs_difference(one, other) for one, other in pairs)


def jacobian_difference() -> float:
    """The product of Jacobians, a factor a step, against what autograd finds for the last state by the first."""
    layer, inputs = RNN(2, 6, orthogonal=True).double(), torch.randn(1, 12, 2, dtype=torch.float64)
    states = states_through_time(layer, inputs)
    shown = torch.cat([state[0] for state in states])
    rows = [torch.autograd.grad(shown[-1, row], states[0][0], retain_graph=True)[0][0] for row in range(6)]
    return max_abs_difference(jacobian_through_time(shown[1:], layer.weight_hh), torch.stack(rows))
