"""The loop: it goes down, stops on NaN, and reports without getting in the way."""

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


def test_a_line_is_fitted_and_every_step_is_recorded(capsys):
    model = Linear(1, 1, Random(0))
    xs = [[-1.0], [0.0], [1.0], [2.0]]
    wanted = tensor([[3.0 * x[0] - 2.0] for x in xs])
    seen = []

    def loss_at(step):
        seen.append(step)
        return ((model(tensor(xs)) - wanted) ** 2).mean()

    losses = train(model, loss_at, SGD(model.parameters().values(), 0.1), 200, label="line")
    assert seen == list(range(200)) and len(losses) == 200
    assert losses[0] > 1.0 > 1e-12 > losses[-1]
    assert model.weight.data + model.bias.data == pytest.approx([3.0, -2.0], abs=1e-5)
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 5
    assert err.splitlines()[-1].startswith("line 200/200  loss 0.0000")


def test_schedule_and_clipping_reach_the_optimizer():
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


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights():
    model = Linear(1, 1, Random(0))
    before = list(model.weight.data)
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        train(model, lambda step: (model.weight * math.nan).sum(), SGD(model.parameters().values(), 1.0), 3)
    assert model.weight.data == before


def test_on_a_terminal_one_line_renews_itself():
    stream = Terminal()
    progress = Progress(1000, "fit", stream)
    for done in range(1, 1001):
        progress.report(done, 0.5)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\x1b[K\n")
    assert "fit 1000/1000  loss 0.5000" in text and "steps/s" in text and "s left" in text
    assert text.count("\r") < 100


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 1000])
def test_into_a_file_only_a_few_lines(steps):
    stream = io.StringIO()
    progress = Progress(steps, "fit", stream)
    for done in range(1, steps + 1):
        progress.report(done, 0.5)
    assert len(stream.getvalue().splitlines()) == min(steps, 5)
    assert "\r" not in stream.getvalue() and f"{steps}/{steps}" in stream.getvalue()


def test_progress_goes_to_standard_error():
    assert Progress(3, "fit").stream is sys.stderr


def test_no_example_comes_twice_before_all_have_come_once():
    batches = shuffled_batches(10, 4, 10, Random(0))
    assert [len(batch) for batch in batches] == [4] * 10
    order = [index for batch in batches for index in batch]
    epochs = [order[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert batches == shuffled_batches(10, 4, 10, Random(0)) != shuffled_batches(10, 4, 10, Random(1))


def test_gradients_of_the_step_before_are_forgotten():
    model = Linear(1, 1, Random(0), bias=False)
    start = model.weight.data[0]
    train(model, lambda step: (model.weight * full((1, 1), 1.0)).sum(), SGD(model.parameters().values(), 1.0), 3)
    assert model.weight.data[0] == pytest.approx(start - 3.0)
