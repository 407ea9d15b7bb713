"""Recurrent layers by hand: the plain network and the LSTM, equal to `torch.nn.RNN` and `torch.nn.LSTM`, weight for weight.

A layer reads a sequence one step after the other and carries a *state* along. One loop (`Recurrent`) serves both; they
differ in what a state is and in how a step changes it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

State = tuple[Float[Tensor, "batch hidden"], ...]
"""What a layer remembers. The first part is also what it shows: (h,) for the plain network, (h, c) for the LSTM."""


def rnn_step(
    projected: Float[Tensor, "batch hidden"],
    h: Float[Tensor, "batch hidden"],
    weight_hh: Float[Tensor, "hidden hidden"],
    bias_hh: Float[Tensor, " hidden"],
) -> Float[Tensor, "batch hidden"]:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh); `projected` is W_ih x + b_ih (Elman 1990)."""
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
    """c' = f · c + i · g and h' = o · tanh(c'), with i, f, g, o = σ, σ, tanh, σ of the four quarters of W_ih x + b_ih + W_hh h + b_hh.

    Hochreiter & Schmidhuber 1997, with the forget gate f of Gers, Schmidhuber & Cummins 2000. Returns (h', c').
    """
    # exercise 0.22: a step of the LSTM
    i, f, g, o = (projected + h @ weight_hh.T + bias_hh).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c
    # end exercise


def carry(alive: Bool[Tensor, " batch"], new: State, old: State) -> State:
    """The new state where a sequence still goes on, the old one where it has ended."""
    # exercise 0.23: keep the state of a sequence that has ended
    return tuple(torch.where(alive[:, None], after, before) for after, before in zip(new, old, strict=True))
    # end exercise


class Recurrent(nn.Module, ABC):
    """Sequences [batch, time, inputs] → what is shown after each step, [batch, time, hidden], and the last state.

    Parameters are named and laid out as those of PyTorch's layers (`weight_ih_l0` there is `weight_ih` here).
    All start even between ±1/√hidden, as there.
    """

    gates: int
    """How many times `hidden` rows the weights have."""

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
    def start(self, batch: int) -> State:
        """The state before anything is read."""

    @abstractmethod
    def step(self, projected: Tensor, state: State) -> State:
        """The next state; `projected` is this step's W_ih x + b_ih."""

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time rows"]:
        """W_ih x + b_ih for all steps at once: no step of it has to wait for another."""
        if inputs.shape[-1] != self.weight_ih.shape[1]:
            raise ValueError(f"inputs are {inputs.shape[-1]} wide; this layer reads {self.weight_ih.shape[1]}")
        return inputs @ self.weight_ih.T + self.bias_ih

    def forward(
        self,
        inputs: Float[Tensor, "batch time inputs"],
        lengths: Int[Tensor, " batch"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Read the sequences, each only as far as its length says; beyond it zeros are shown and the state stays.

        Raises ValueError for inputs of another width, or a length that is not between 1 and the number of steps.
        """
        batch, time, _ = inputs.shape
        if lengths is not None and (int(lengths.min()) < 1 or int(lengths.max()) > time):
            raise ValueError(
                f"lengths run from {int(lengths.min())} to {int(lengths.max())}; with {time} steps they are 1 to {time}"
            )
        state = self.start(batch) if state is None else state
        projected, shown = self.project(inputs), []
        for moment in range(time):
            new = self.step(projected[:, moment], state)
            if lengths is None:
                shown.append(new[0])
            else:
                alive = moment < lengths
                new = carry(alive, new, state)
                shown.append(torch.where(alive[:, None], new[0], 0.0))
            state = new
        return torch.stack(shown, dim=1), state


class RNN(Recurrent):
    """The plain recurrent network. With `orthogonal`, W_hh starts as a rotation, which neither shrinks nor grows what it turns
    (arXiv:1312.6120): the kindest start that is known for it."""

    gates = 1

    def __init__(self, inputs: int, hidden: int, *, orthogonal: bool = False):
        super().__init__(inputs, hidden)
        if orthogonal:
            nn.init.orthogonal_(self.weight_hh)

    def start(self, batch: int) -> State:
        return (self.weight_hh.new_zeros(batch, self.hidden),)

    def step(self, projected: Tensor, state: State) -> State:
        (h,) = state
        return (rnn_step(projected, h, self.weight_hh, self.bias_hh),)


class LSTM(Recurrent):
    """Long short-term memory. The forget gates' bias starts at 1: keep, unless taught otherwise (Gers et al. 2000).

    With `remember`, gates start as different clocks: each cell lets go of its content over some number of steps between 1
    and `remember`, and takes in as slowly (arXiv:1804.11188, eq. 16).
    """

    gates = 4

    def __init__(self, inputs: int, hidden: int, *, remember: int | None = None):
        super().__init__(inputs, hidden)
        taking, keeping = slice(0, hidden), slice(hidden, 2 * hidden)
        with torch.no_grad():
            self.bias_ih[keeping] = 1.0
            self.bias_hh[keeping] = 0.0
            if remember is not None:
                # A gate σ(log(steps)) = steps / (steps + 1) keeps a share that fades to 1/e in about so many steps.
                self.bias_ih[keeping] = torch.empty(hidden).uniform_(1, remember - 1).log()
                self.bias_ih[taking] = -self.bias_ih[keeping]
                self.bias_hh[taking] = 0.0

    def start(self, batch: int) -> State:
        return self.weight_hh.new_zeros(batch, self.hidden), self.weight_hh.new_zeros(batch, self.hidden)

    def step(self, projected: Tensor, state: State) -> State:
        h, c = state
        return lstm_step(projected, h, c, self.weight_hh, self.bias_hh)


LONG = 100
"""Up to how many steps the cells of "lstm, slow" remember at the start."""

KINDS: dict[str, Callable[[int, int], Recurrent]] = {
    "rnn": RNN,
    "rnn, orthogonal": partial(RNN, orthogonal=True),
    "lstm": LSTM,
    "lstm, slow": partial(LSTM, remember=LONG),
}


def make_layer(kind: str, inputs: int, hidden: int) -> Recurrent:
    """A layer by name. Raises ValueError for another name."""
    if kind not in KINDS:
        raise ValueError(f"no recurrent layer {kind!r}: choose one of {'; '.join(KINDS)}")
    return KINDS[kind](inputs, hidden)


def rnn_width_of_equal_size(inputs: int, hidden: int) -> int:
    """How wide a plain network must be to have as many parameters as an LSTM of width `hidden`, or next to as many."""

    def size(width: int, gates: int) -> int:
        return gates * width * (inputs + width + 2)

    return min(range(hidden, 4 * hidden + 1), key=lambda width: abs(size(width, 1) - size(hidden, 4)))


class Predictor(nn.Module):
    """Values [batch, time] → a guess of the next value after each, [batch, time].

    It guesses the change and adds it to the last value, so that guessing nothing is the last-value baseline.
    """

    def __init__(self, kind: str, hidden: int):
        super().__init__()
        self.layer = make_layer(kind, 1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, values: Float[Tensor, "batch time"]) -> Float[Tensor, "batch time"]:
        shown, _ = self.layer(values[..., None])
        return values + self.head(shown)[..., 0]

    @torch.no_grad()
    def go_on(self, values: Float[Tensor, "batch time"], count: int) -> Float[Tensor, "batch count"]:
        """The next `count` values, each guessed from what was guessed before."""
        guesses = []
        shown, state = self.layer(values[..., None])
        last = values[:, -1] + self.head(shown[:, -1])[:, 0]
        for _ in range(count):
            guesses.append(last)
            shown, state = self.layer(last[:, None, None], state=state)
            last = last + self.head(shown[:, -1])[:, 0]
        return torch.stack(guesses, dim=1)


class SequenceClassifier(nn.Module):
    """Vectors [batch, time, inputs] → logits [batch, classes], from what the layer shows at the end of each sequence."""

    def __init__(self, kind: str, inputs: int, hidden: int, classes: int):
        super().__init__()
        self.layer = make_layer(kind, inputs, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(
        self, inputs: Float[Tensor, "batch time inputs"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        _, state = self.layer(inputs, lengths)
        return self.head(state[0])


class SentenceClassifier(nn.Module):
    """Words by number [batch, time] with lengths → logits [batch, classes]: a vector for each word, then the layer."""

    def __init__(self, kind: str, vocab: int, width: int, hidden: int, classes: int = 2):
        super().__init__()
        self.words = nn.Embedding(vocab, width)
        self.read = SequenceClassifier(kind, width, hidden, classes)

    def forward(
        self, words: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        return self.read(self.words(words), lengths)
