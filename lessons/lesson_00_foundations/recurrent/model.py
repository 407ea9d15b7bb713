"""Recurrent layers written by hand: the RNN and the LSTM, equal to `torch.nn.RNN` and `torch.nn.LSTM`.

A layer processes a sequence step by step and carries a *state* along. One loop (`Recurrent`) serves both layers; they
differ in their state and in how a step updates it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

State = tuple[Float[Tensor, "batch hidden"], ...]
"""The state of a layer: (h,) for the RNN, (h, c) for the LSTM. The first tensor is also the output."""


def rnn_step(
    projected: Float[Tensor, "batch hidden"],
    h: Float[Tensor, "batch hidden"],
    weight_hh: Float[Tensor, "hidden hidden"],
    bias_hh: Float[Tensor, " hidden"],
) -> Float[Tensor, "batch hidden"]:
    """Return h' = tanh(W_ih x + b_ih + W_hh h + b_hh); `projected` is W_ih x + b_ih (Elman 1990)."""
    # exercise 0.21: a step of the plain recurrent network
    return torch.tanh(projected + h @ weight_hh.T + bias_hh)
    # end exercise


def lstm_step(
    projected: Float[Tensor, "batch rows"],
    h: Float[Tensor, "batch hidden"],
    c: Float[Tensor, "batch hidden"],
    weight_hh: Float[Tensor, "rows hidden"],
    bias_hh: Float[Tensor, "rows"],
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """Return (h', c') with c' = f · c + i · g and h' = o · tanh(c').

    i, f, g, o = σ, σ, tanh, σ of the four quarters of W_ih x + b_ih + W_hh h + b_hh; `projected` is W_ih x + b_ih.
    Source: Hochreiter & Schmidhuber 1997, with the forget gate f of Gers, Schmidhuber & Cummins 2000.
    """
    # exercise 0.22: a step of the LSTM
    i, f, g, o = (projected + h @ weight_hh.T + bias_hh).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
    # end exercise


def keep_finished_states(active: Bool[Tensor, " batch"], new: State, old: State) -> State:
    """Return the new state of every sequence that is still active, and the old state of those that have ended."""
    # exercise 0.23: keep the state of a sequence that has ended
    return tuple(torch.where(active[:, None], after, before) for after, before in zip(new, old, strict=True))
    # end exercise


class Recurrent(nn.Module, ABC):
    """Process sequences [batch, time, inputs]; return the outputs [batch, time, hidden] and the last state.

    Parameters have the names and shapes of PyTorch's layers (`weight_ih_l0` there is `weight_ih` here), and the same
    initialization: uniform between ±1/√hidden.
    """

    gates: int
    """Number of blocks of `hidden` rows in each weight matrix."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.hidden = hidden
        self.weight_ih = nn.Parameter(torch.empty(self.gates * hidden, inputs))
        self.weight_hh = nn.Parameter(torch.empty(self.gates * hidden, hidden))
        self.bias_ih = nn.Parameter(torch.empty(self.gates * hidden))
        self.bias_hh = nn.Parameter(torch.empty(self.gates * hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """Return the state before the first step: zeros."""

    @abstractmethod
    def step(self, projected: Tensor, state: State) -> State:
        """Return the next state; `projected` is this step's W_ih x + b_ih."""

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time rows"]:
        """Return W_ih x + b_ih for all steps at once, since no step of it depends on another."""
        if inputs.shape[-1] != self.weight_ih.shape[1]:
            raise ValueError(f"inputs have width {inputs.shape[-1]}; this layer expects {self.weight_ih.shape[1]}")
        return inputs @ self.weight_ih.T + self.bias_ih

    def forward(
        self,
        inputs: Float[Tensor, "batch time inputs"],
        lengths: Int[Tensor, " batch"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Process each sequence up to its length; beyond it, outputs are zeros and the state stays unchanged.

        Raises ValueError for inputs of another width, or a length that is not between 1 and the number of steps.
        """
        batch, time, _ = inputs.shape
        if lengths is not None and (int(lengths.min()) < 1 or int(lengths.max()) > time):
            raise ValueError(
                f"lengths run from {int(lengths.min())} to {int(lengths.max())}; for {time} steps expected 1 to {time}"
            )
        state = self.initial_state(batch) if state is None else state
        projected, outputs = self.project(inputs), []
        for t in range(time):
            new = self.step(projected[:, t], state)
            if lengths is None:
                outputs.append(new[0])
            else:
                active = t < lengths
                new = keep_finished_states(active, new, state)
                outputs.append(torch.where(active[:, None], new[0], 0.0))
            state = new
        return torch.stack(outputs, dim=1), state


class RNN(Recurrent):
    """The plain recurrent network.

    With `orthogonal`, W_hh starts as an orthogonal matrix, which preserves the length of vectors (arXiv:1312.6120).
    """

    gates = 1

    def __init__(self, inputs: int, hidden: int, *, orthogonal: bool = False):
        super().__init__(inputs, hidden)
        if orthogonal:
            nn.init.orthogonal_(self.weight_hh)

    def initial_state(self, batch: int) -> State:
        return (self.weight_hh.new_zeros(batch, self.hidden),)

    def step(self, projected: Tensor, state: State) -> State:
        (h,) = state
        return (rnn_step(projected, h, self.weight_hh, self.bias_hh),)


class LSTM(Recurrent):
    """Long short-term memory. The forget gates' bias starts at 1, so that a cell initially keeps most of its content.

    With `chrono_steps`, gate biases start by chrono initialization (arXiv:1804.11188, eq. 16): each cell forgets its
    content over a random number of steps between 1 and `chrono_steps`, and takes in input as slowly.
    """

    gates = 4

    def __init__(self, inputs: int, hidden: int, *, chrono_steps: int | None = None):
        super().__init__(inputs, hidden)
        input_gate, forget_gate = slice(0, hidden), slice(hidden, 2 * hidden)
        with torch.no_grad():
            self.bias_ih[forget_gate] = 1.0
            self.bias_hh[forget_gate] = 0.0
            if chrono_steps is not None:
                # A gate σ(log(steps)) = steps / (steps + 1) retains 1/e of the content after about `steps` steps.
                self.bias_ih[forget_gate] = torch.empty(hidden).uniform_(1, chrono_steps - 1).log()
                self.bias_ih[input_gate] = -self.bias_ih[forget_gate]
                self.bias_hh[input_gate] = 0.0

    def initial_state(self, batch: int) -> State:
        return self.weight_hh.new_zeros(batch, self.hidden), self.weight_hh.new_zeros(batch, self.hidden)

    def step(self, projected: Tensor, state: State) -> State:
        h, c = state
        return lstm_step(projected, h, c, self.weight_hh, self.bias_hh)


CHRONO_STEPS = 100
"""The longest initial memory of a cell of "lstm, chrono", in steps."""

LAYER_TYPES: dict[str, Callable[[int, int], Recurrent]] = {
    "rnn": RNN,
    "rnn, orthogonal": partial(RNN, orthogonal=True),
    "lstm": LSTM,
    "lstm, chrono": partial(LSTM, chrono_steps=CHRONO_STEPS),
}


def build_layer(layer_type: str, inputs: int, hidden: int) -> Recurrent:
    """Build a layer by the name of its type. Raises ValueError for an unknown name."""
    if layer_type not in LAYER_TYPES:
        raise ValueError(f"no recurrent layer {layer_type!r}: choose one of {'; '.join(LAYER_TYPES)}")
    return LAYER_TYPES[layer_type](inputs, hidden)


def rnn_width_of_equal_size(inputs: int, hidden: int) -> int:
    """Return the width of the RNN whose number of parameters is closest to that of an LSTM of width `hidden`."""

    def parameters(width: int, gates: int) -> int:
        return gates * width * (inputs + width + 2)

    return min(range(hidden, 4 * hidden + 1), key=lambda width: abs(parameters(width, 1) - parameters(hidden, 4)))


class Predictor(nn.Module):
    """Predict the next value after each of the values [batch, time]; return [batch, time].

    The network predicts the change from the last value, so that an output of zero is the last-value baseline.
    """

    def __init__(self, layer_type: str, hidden: int):
        super().__init__()
        self.layer = build_layer(layer_type, 1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, values: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        outputs, _ = self.layer(values[..., None])
        return values + self.head(outputs)[..., 0]

    @torch.no_grad()
    def extrapolate(self, values: Float[Tensor, "batch time"], count: int) -> Float[Tensor, "batch count"]:
        """Return the next `count` values, each predicted from the predictions before it."""
        predictions = []
        outputs, state = self.layer(values[..., None])
        last = values[:, -1] + self.head(outputs[:, -1])[:, 0]
        for _ in range(count):
            predictions.append(last)
            outputs, state = self.layer(last[:, None, None], state=state)
            last = last + self.head(outputs[:, -1])[:, 0]
        return torch.stack(predictions, dim=1)


class SequenceClassifier(nn.Module):
    """Classify sequences of vectors [batch, time, inputs] from the last output; return logits [batch, classes]."""

    def __init__(self, layer_type: str, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.layer = build_layer(layer_type, inputs, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(
        self, inputs: Float[Tensor, "batch time inputs"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        _, state = self.layer(inputs, lengths)
        return self.head(state[0])


class SentenceClassifier(nn.Module):
    """Classify sentences of token ids [batch, time] with lengths: embedding, then recurrent layer, then head."""

    def __init__(self, layer_type: str, vocab_size: int, width: int, hidden: int, classes: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.classifier = SequenceClassifier(layer_type, width, hidden, classes)

    def forward(
        self, token_ids: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.embedding(token_ids), lengths)
