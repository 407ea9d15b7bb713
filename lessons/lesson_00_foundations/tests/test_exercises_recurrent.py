"""The exercises of the recurrent part: each test says what must hold, and a small mistake breaks one of them."""

import pytest
import torch


def close(given, expected, tolerance=1e-5):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


def cell_arguments(gates, hidden=3, batch=4):
    return {
        "projected": torch.randn(batch, gates * hidden),
        "h": torch.randn(batch, hidden),
        "weight_hh": torch.randn(gates * hidden, hidden),
        "bias_hh": torch.randn(gates * hidden),
    }


def loaded(cell, arguments):
    """A cell of PyTorch's whose input is added as it is."""
    rows = arguments["projected"].shape[1]
    cell = cell(rows, arguments["h"].shape[1]).double()
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(rows))
        cell.bias_ih.zero_()
        cell.weight_hh.copy_(arguments["weight_hh"])
        cell.bias_hh.copy_(arguments["bias_hh"])
    return cell


# ── 0.21: the plain step ──────────────────────────────────────────────────────────────────────────────────────────────

RNN = "recurrent.model:rnn_step"


@pytest.mark.exercise("0.21")
def test_the_plain_step_is_pytorchs(student):
    arguments, upstream = cell_arguments(1), torch.randn(4, 3)
    found, gradients = student(RNN, upstream=upstream, **arguments)
    cell = loaded(torch.nn.RNNCell, arguments)
    projected, h = (arguments[name].double().requires_grad_() for name in ("projected", "h"))
    expected = cell(projected, h)
    close(found, expected.detach())
    inputs = [projected, h, cell.weight_hh, cell.bias_hh]
    for name, gradient in zip(arguments, torch.autograd.grad(expected, inputs, upstream.double()), strict=True):
        close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("0.21")
def test_what_is_remembered_stays_between_minus_one_and_one(student):
    arguments = cell_arguments(1)
    arguments["projected"] = torch.tensor([[9.0, -9.0, 0.0]]).expand(4, 3)
    arguments["h"] = torch.zeros(4, 3)
    arguments["bias_hh"] = torch.zeros(3)
    close(student(RNN, **arguments), torch.tensor([[1.0, -1.0, 0.0]]).expand(4, 3), 1e-5)


# ── 0.22: the LSTM's step ─────────────────────────────────────────────────────────────────────────────────────────────

LSTM = "recurrent.model:lstm_step"


@pytest.mark.exercise("0.22")
@pytest.mark.parametrize("hidden", [1, 3, 5])
def test_the_lstms_step_is_pytorchs(student, hidden):
    arguments, upstream = cell_arguments(4, hidden), torch.randn(4, hidden)
    arguments["c"] = torch.randn(4, hidden)
    (shown, kept), gradients = student(LSTM, upstream=upstream, **arguments)
    cell = loaded(torch.nn.LSTMCell, arguments)
    projected, h, c = (arguments[name].double().requires_grad_() for name in ("projected", "h", "c"))
    expected, expected_kept = cell(projected, (h, c))
    close(shown, expected.detach())
    close(kept, expected_kept.detach())
    inputs = {"projected": projected, "h": h, "c": c, "weight_hh": cell.weight_hh, "bias_hh": cell.bias_hh}
    for name, gradient in zip(
        inputs, torch.autograd.grad(expected, list(inputs.values()), upstream.double()), strict=True
    ):
        close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("0.22")
@pytest.mark.parametrize(
    ("gates", "shown", "kept"),
    [
        # Nothing in, all kept, all shown.
        ((-50.0, 50.0, 1.0, 50.0), 0.5, None),
        # All in, nothing kept.
        ((50.0, -50.0, 50.0, 50.0), 1.0, 1.0),
        # Kept, but not shown.
        ((-50.0, 50.0, 0.0, -50.0), 0.0, None),
    ],
)
def test_gates_open_and_close(student, gates, shown, kept):
    c = torch.atanh(torch.tensor([[0.5]]))
    arguments = {
        "projected": torch.tensor([gates]),
        "h": torch.zeros(1, 1),
        "c": c,
        "weight_hh": torch.randn(4, 1),
        "bias_hh": torch.zeros(4),
    }
    found, cell = student(LSTM, **arguments)
    close(cell, c if kept is None else torch.tensor([[kept]]))
    close(found, torch.tanh(torch.tensor([[1.0]])) if kept else torch.tensor([[shown]]))


# ── 0.23: sequences that end ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.23")
@pytest.mark.parametrize("parts", [1, 2])
def test_an_ended_sequence_keeps_its_state(student, parts):
    alive = torch.tensor([True, False, True, False])
    new, old = (tuple(torch.randn(4, 3) for _ in range(parts)) for _ in range(2))
    found = student("recurrent.model:carry", alive=alive, new=new, old=old)
    assert len(found) == parts
    for after, before, kept in zip(new, old, found, strict=True):
        close(kept[alive], after[alive])
        close(kept[~alive], before[~alive])


# ── 0.24: the chain rule through time ─────────────────────────────────────────────────────────────────────────────────

JACOBIAN = "recurrent.recall:jacobian_through_time"


@pytest.mark.exercise("0.24")
@pytest.mark.parametrize("time", [1, 2, 5])
def test_the_product_of_jacobians_is_what_autograd_finds(student, time):
    weight = torch.randn(4, 4, dtype=torch.float64)

    def go_on(state):
        states = []
        for _ in range(time):
            state = torch.tanh(weight @ state)
            states.append(state)
        return torch.stack(states)

    before = torch.randn(4, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda state: go_on(state)[-1], before)
    close(student(JACOBIAN, shown=go_on(before), weight_hh=weight), expected, 1e-9)


@pytest.mark.exercise("0.24")
def test_a_gradient_fades_by_a_factor_a_step(student):
    """Half as much each step, where tanh is straight: 2⁻²⁰ after twenty steps."""
    product = student(JACOBIAN, shown=torch.zeros(20, 3), weight_hh=0.5 * torch.eye(3))
    close(product * 2**20, torch.eye(3), 1e-6)


# ── 0.25: counting words ──────────────────────────────────────────────────────────────────────────────────────────────

BAG = "recurrent.opinions:bag_of_words"


@pytest.mark.exercise("0.25")
def test_every_word_counts_and_what_fills_up_does_not(student):
    numbers = torch.tensor([[3, 1, 3, 3, 0], [2, 4, 1, 0, 0], [1, 2, 3, 4, 1]])
    expected = [[0, 1, 0, 3, 0, 0], [0, 1, 1, 0, 1, 0], [0, 2, 1, 1, 1, 0]]
    close(student(BAG, numbers=numbers, vocab=6), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.exercise("0.25")
def test_the_order_of_words_is_lost(student):
    numbers = torch.randint(1, 9, (5, 7))
    close(student(BAG, numbers=numbers, vocab=9), student(BAG, numbers=numbers.flip(1), vocab=9))
    assert (student(BAG, numbers=numbers, vocab=9).sum(1) == 7).all()
