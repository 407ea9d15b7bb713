"""Test the training loop: it reduces the loss, stops on NaN, and reports progress."""

import io
import math
import sys
from random import Random

import pytest

from shared.stdlib.creation import full, tensor
from shared.stdlib.nn import Linear
from shared.stdlib.optim import SGD
from shared.stdlib.training import Progress, shuffled_batches, train


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_is_fitted_and_every_loss_is_returned(capsys):
    model = Linear(1, 1, Random(0))
    xs = [[-1.0], [0.0], [1.0], [2.0]]
    expected = tensor([[3.0 * x[0] - 2.0] for x in xs])
    steps_of_calls = []

    def loss_at(step):
        steps_of_calls.append(step)
        return ((model(tensor(xs)) - expected) ** 2).mean()

    losses = train(model, loss_at, SGD(model.parameters().values(), 0.1), 200, label="line")
    assert steps_of_calls == list(range(200)) and len(losses) == 200
    assert losses[0] > 1.0 > 1e-12 > losses[-1]
    assert model.weight.data + model.bias.data == pytest.approx([3.0, -2.0], abs=1e-5)
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 5
    assert err.splitlines()[-1].startswith("line 200/200  loss 0.0000")


def test_schedule_and_clipping_are_applied():
    model = Linear(1, 1, Random(0), bias=False)
    start = model.weight.data[0]
    train(
        model,
        lambda step: (model.weight * 100.0).sum(),
        SGD(model.parameters().values(), 1.0),
        3,
        schedule=lambda step: [1.0, 0.5, 0.0][step],
        clip_norm=2.0,
    )
    assert model.weight.data[0] == pytest.approx(start - 2.0 - 1.0)


def test_nan_loss_stops_before_weights_change():
    model = Linear(1, 1, Random(0))
    before = list(model.weight.data)
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        train(model, lambda step: (model.weight * math.nan).sum(), SGD(model.parameters().values(), 1.0), 3)
    assert model.weight.data == before


def test_terminal_line_is_rewritten_in_place():
    stream = Terminal()
    progress = Progress(1000, "fit", stream)
    for done in range(1, 1001):
        progress.report(done, 0.5)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\x1b[K\n")
    assert "fit 1000/1000  loss 0.5000" in text and "steps/s" in text and "s left" in text
    assert text.count("\r") < 100


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 1000])
def test_file_gets_a_few_lines(steps):
    stream = io.StringIO()
    progress = Progress(steps, "fit", stream)
    for done in range(1, steps + 1):
        progress.report(done, 0.5)
    assert len(stream.getvalue().splitlines()) == min(steps, 5)
    assert "\r" not in stream.getvalue() and f"{steps}/{steps}" in stream.getvalue()


def test_progress_goes_to_standard_error():
    assert Progress(3, "fit").stream is sys.stderr


def test_every_example_occurs_once_per_epoch():
    batches = shuffled_batches(10, 4, 10, Random(0))
    assert [len(batch) for batch in batches] == [4] * 10
    order = [index for batch in batches for index in batch]
    epochs = [order[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert batches == shuffled_batches(10, 4, 10, Random(0)) != shuffled_batches(10, 4, 10, Random(1))


def test_gradients_are_reset_at_every_step():
    model = Linear(1, 1, Random(0), bias=False)
    start = model.weight.data[0]
    train(model, lambda step: (model.weight * full((1, 1), 1.0)).sum(), SGD(model.parameters().values(), 1.0), 3)
    assert model.weight.data[0] == pytest.approx(start - 3.0)
