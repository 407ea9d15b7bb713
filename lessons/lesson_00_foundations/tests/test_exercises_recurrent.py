"""The exercises of the part `recurrent`: each test checks a property that small mistakes break."""

import pytest
import torch


def assert_close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


def cell_arguments(gates, hidden=3, batch=4):
    return {
        "projected": torch.randn(batch, gates * hidden),
        "h": torch.randn(batch, hidden),
        "weight_hh": torch.randn(gates * hidden, hidden),
        "bias_hh": torch.randn(gates * hidden),
    }


def torch_cell(cell_class, arguments):
    """Return a PyTorch cell with the given weights that adds its input unchanged."""
    rows = arguments["projected"].shape[1]
    cell = cell_class(rows, arguments["h"].shape[1]).double()
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(rows))
        cell.bias_ih.zero_()
        cell.weight_hh.copy_(arguments["weight_hh"])
        cell.bias_hh.copy_(arguments["bias_hh"])
    return cell


# ── 0.21: the plain step ──────────────────────────────────────────────────────────────────────────────────────────────

RNN = "recurrent.model:rnn_step"


@pytest.mark.exercise("0.21")
def test_the_rnn_step_equals_pytorchs(student):
    arguments, upstream = cell_arguments(1), torch.randn(4, 3)
    result, gradients = student(RNN, upstream=upstream, **arguments)
    cell = torch_cell(torch.nn.RNNCell, arguments)
    projected, h = (arguments[name].double().requires_grad_() for name in ("projected", "h"))
    expected = cell(projected, h)
    assert_close(result, expected.detach())
    inputs = [projected, h, cell.weight_hh, cell.bias_hh]
    for name, gradient in zip(arguments, torch.autograd.grad(expected, inputs, upstream.double()), strict=True):
        assert_close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("0.21")
def test_the_state_stays_between_minus_one_and_one(student):
    arguments = cell_arguments(1)
    arguments["projected"] = torch.tensor([[9.0, -9.0, 0.0]]).expand(4, 3)
    arguments["h"] = torch.zeros(4, 3)
    arguments["bias_hh"] = torch.zeros(3)
    assert_close(student(RNN, **arguments), torch.tensor([[1.0, -1.0, 0.0]]).expand(4, 3), 1e-5)


# ── 0.22: the LSTM's step ─────────────────────────────────────────────────────────────────────────────────────────────

LSTM = "recurrent.model:lstm_step"


@pytest.mark.exercise("0.22")
@pytest.mark.parametrize("hidden", [1, 3, 5])
def test_the_lstm_step_equals_pytorchs(student, hidden):
    arguments, upstream = cell_arguments(4, hidden), torch.randn(4, hidden)
    arguments["c"] = torch.randn(4, hidden)
    (h_next, c_next), gradients = student(LSTM, upstream=upstream, **arguments)
    cell = torch_cell(torch.nn.LSTMCell, arguments)
    projected, h, c = (arguments[name].double().requires_grad_() for name in ("projected", "h", "c"))
    expected, expected_cell = cell(projected, (h, c))
    assert_close(h_next, expected.detach())
    assert_close(c_next, expected_cell.detach())
    inputs = {"projected": projected, "h": h, "c": c, "weight_hh": cell.weight_hh, "bias_hh": cell.bias_hh}
    for name, gradient in zip(
        inputs, torch.autograd.grad(expected, list(inputs.values()), upstream.double()), strict=True
    ):
        assert_close(gradients[name], gradient, 1e-4)


@pytest.mark.exercise("0.22")
@pytest.mark.parametrize(
    ("gates", "expected_h", "expected_c"),
    [
        # Input gate closed, forget and output gates open.
        ((-50.0, 50.0, 1.0, 50.0), 0.5, None),
        # Input and output gates open, forget gate closed.
        ((50.0, -50.0, 50.0, 50.0), 1.0, 1.0),
        # Only the forget gate open.
        ((-50.0, 50.0, 0.0, -50.0), 0.0, None),
    ],
)
def test_gates_open_and_close(student, gates, expected_h, expected_c):
    c = torch.atanh(torch.tensor([[0.5]]))
    arguments = {
        "projected": torch.tensor([gates]),
        "h": torch.zeros(1, 1),
        "c": c,
        "weight_hh": torch.randn(4, 1),
        "bias_hh": torch.zeros(4),
    }
    h_next, c_next = student(LSTM, **arguments)
    assert_close(c_next, c if expected_c is None else torch.tensor([[expected_c]]))
    assert_close(h_next, torch.tanh(torch.tensor([[1.0]])) if expected_c else torch.tensor([[expected_h]]))


# ── 0.23: sequences that end ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.23")
@pytest.mark.parametrize("parts", [1, 2])
def test_an_ended_sequence_keeps_its_state(student, parts):
    active = torch.tensor([True, False, True, False])
    new, old = (tuple(torch.randn(4, 3) for _ in range(parts)) for _ in range(2))
    result = student("recurrent.model:keep_finished_states", active=active, new=new, old=old)
    assert len(result) == parts
    for after, before, state in zip(new, old, result, strict=True):
        assert_close(state[active], after[active])
        assert_close(state[~active], before[~active])


# ── 0.24: the chain rule through time ─────────────────────────────────────────────────────────────────────────────────

JACOBIAN = "recurrent.experiment.gradients:jacobian_through_time"


@pytest.mark.exercise("0.24")
@pytest.mark.parametrize("time", [1, 2, 5])
def test_the_product_of_jacobians_equals_autograds(student, time):
    weight = torch.randn(4, 4, dtype=torch.float64)

    def states_after(state):
        states = []
        for _ in range(time):
            state = torch.tanh(weight @ state)
            states.append(state)
        return torch.stack(states)

    before = torch.randn(4, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda state: states_after(state)[-1], before)
    assert_close(student(JACOBIAN, outputs=states_after(before), weight_hh=weight), expected, 1e-9)


@pytest.mark.exercise("0.24")
def test_a_gradient_decays_by_a_factor_per_step(student):
    """Where tanh is linear and W_hh is ½, the gradient is 2⁻²⁰ after twenty steps."""
    product = student(JACOBIAN, outputs=torch.zeros(20, 3), weight_hh=0.5 * torch.eye(3))
    assert_close(product * 2**20, torch.eye(3), 1e-6)


# ── 0.25: counting words ──────────────────────────────────────────────────────────────────────────────────────────────

BAG = "recurrent.experiment.sentiment:bag_of_words"


@pytest.mark.exercise("0.25")
def test_every_word_counts_and_padding_does_not(student):
    token_ids = torch.tensor([[3, 1, 3, 3, 0], [2, 4, 1, 0, 0], [1, 2, 3, 4, 1]])
    expected = [[0, 1, 0, 3, 0, 0], [0, 1, 1, 0, 1, 0], [0, 2, 1, 1, 1, 0]]
    assert_close(student(BAG, token_ids=token_ids, vocab_size=6), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.exercise("0.25")
def test_the_order_of_words_is_lost(student):
    token_ids = torch.randint(1, 9, (5, 7))
    assert_close(
        student(BAG, token_ids=token_ids, vocab_size=9), student(BAG, token_ids=token_ids.flip(1), vocab_size=9)
    )
    assert (student(BAG, token_ids=token_ids, vocab_size=9).sum(1) == 7).all()


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(RNN, cell_arguments(1, batch=1), [(1, 3)], marks=pytest.mark.exercise("0.21")),
    pytest.param(
        JACOBIAN,
        {"outputs": torch.zeros(2, 1), "weight_hh": torch.ones(1, 1)},
        [(1, 1)],
        marks=pytest.mark.exercise("0.24"),
    ),
    pytest.param(
        BAG, {"token_ids": torch.tensor([[1, 2]]), "vocab_size": 4}, [(1, 4)], marks=pytest.mark.exercise("0.25")
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
