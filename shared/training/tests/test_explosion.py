import math
import random

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shared.training import Batches, Exploded, RunOptions, TrainingConfig, load_weights, read_metrics, train
from shared.training.explosion import PATIENCE, LossWatch

INPUTS = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
HEALTHY = [2.3 * 0.98**step for step in range(200)]


def stops_at(losses, factor: float | None = 10.0, history=()) -> int | None:
    """The place of the loss at which the watch stops the run, None when it lets it be."""
    watch = LossWatch(factor, history)
    return next((place for place, loss in enumerate(losses) if watch.exploded(loss)), None)


def test_a_loss_that_stays_beyond_ten_times_the_highest_stops_the_run():
    assert stops_at([*HEALTHY, *[23.1] * 100]) == 200 + PATIENCE - 1
    assert stops_at([*HEALTHY, *[22.9] * 100]) is None
    assert stops_at([*HEALTHY, *[2.4] * 100]) is None
    assert stops_at([*HEALTHY, *[4.7] * 100], factor=2.0) == 200 + PATIENCE - 1
    assert stops_at([*HEALTHY, *[1e9] * 100], factor=None) is None


@pytest.mark.parametrize("growth", [30.0, 1.5, 1.1, 1.04])
def test_growth_without_end_is_noticed_however_smooth(growth):
    place = stops_at([2.0] * 200 + [2.0 * growth**step for step in range(150)])
    # It grows beyond ten times what was before, and then by as much again while patience lasts.
    assert place == 200 + math.floor(math.log(10, growth) + 1) + PATIENCE - 1


def test_the_highest_is_that_of_the_whole_run():
    assert stops_at([50.0, *[0.1] * 1000, *[450.0] * 100]) is None
    assert stops_at([50.0, *[0.1] * 1000, *[501.0] * 100]) == 1001 + PATIENCE - 1


@pytest.mark.parametrize(
    "losses",
    {
        "a bad batch": [*HEALTHY, 1e6, *HEALTHY],
        "spikes that heal": [*HEALTHY, *[500.0] * (PATIENCE - 1), *HEALTHY, *[500.0] * (PATIENCE - 1), *HEALTHY],
        "a wild beginning": [1e6, *HEALTHY, *[40.0] * 50],
        "a long rise": [0.7 * 1.01**step for step in range(600)],
        "nearly nothing, then hops": [*HEALTHY, *[1e-6] * 500, *[1e-2] * 50, *[1e-6] * 50],
        "a reward that is found late": [0.0] * 500 + [0.7] * 100,
        "a negative loss": [-700.0] * 200 + [600.0] * 100,
        "a loss counted in sums": [550.0] * 200 + [5000.0] * 100,
        "a term that joins midway": [0.05] * 300 + [0.65] * 300,
    }.items(),
    ids=lambda case: case[0],
)
def test_healthy_runs_are_let_be(losses):
    assert stops_at(losses[1]) is None


def test_a_bad_batch_is_no_measure():
    assert stops_at([*HEALTHY, 1e6, *HEALTHY, *[100.0] * 50]) == 2 * len(HEALTHY) + PATIENCE


def test_a_noisy_run_is_let_be():
    chance = random.Random(0)
    assert stops_at([chance.lognormvariate(0.0, 1.5) for _ in range(20_000)]) is None


def test_a_run_that_goes_on_takes_its_record_from_the_log():
    history = [{"step": step, "loss": 2.3} for step in range(10, 210, 10)]
    exploding = [{"step": 210, "loss": 5e4}, {"step": 220, "evaluation/error": 1.0}, {"step": 230, "loss": None}]
    assert stops_at([5e4] * 100, history=history) == PATIENCE - 1
    # What had begun to explode before the cut is no part of the record.
    assert stops_at([5e4] * 100, history=history + exploding) == PATIENCE - 1
    assert stops_at([5e4] * 100) is None  # without a record, nothing is known of what is healthy


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


class Diverging:
    """A regression whose learning goes wrong in one place: from a certain batch on, one bias is pushed away."""

    def __init__(self, model: nn.Module, first: int):
        self.model, self.first, self.batches = model, first, Batches(INPUTS, batch_size=8, seed=0)

    def batch_at(self, number: int):
        if number >= self.first:
            with torch.no_grad():
                self.model[2].bias += 30.0
        return self.batches(number)

    @staticmethod
    def loss(model, batch):
        return (model(batch) - batch.sum(-1, keepdim=True)).square().mean()


def run(folder=None, **changes):
    model = network()
    diverging = Diverging(model, 240)
    settings = {"steps": 400, "learning_rate": 1e-3, "accumulate": 2, "checkpoint_every": 50} | changes
    return train(
        model,
        diverging.batch_at,
        diverging.loss,
        TrainingConfig(**settings),
        run=RunOptions(folder=folder),
    )


def test_an_exploded_run_stops_and_keeps_the_evidence(tmp_path):
    with pytest.raises(Exploded) as caught:
        run(tmp_path)
    message = str(caught.value)
    began = 120  # steps of two batches
    assert f"stopped at step {began + PATIENCE}: for {PATIENCE} steps the loss has been more than 10 times" in message
    assert "has grown most is 2.bias" in message and "as after step 120" in message
    assert f"(number {2 * began}) and the state now are in {tmp_path / 'exploded'}" in message
    assert "explosion_factor=None" in message and "\n" not in message
    batch = load_file(tmp_path / "exploded" / "batch.safetensors")["batch"]
    assert torch.equal(batch, Batches(INPUTS, batch_size=8, seed=0)(2 * began))
    assert load_weights(network(), tmp_path / "exploded")[2].bias.item() > 1000
    # What was saved before stays where it was, and the log tells the rise.
    assert abs(load_weights(network(), tmp_path)[2].bias.item()) < 1
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(10, 140, 10))


def test_a_run_that_was_cut_still_knows_what_was_healthy(tmp_path):
    model = network()
    diverging = Diverging(model, 2 * 160)

    def cut(number: int):
        raise KeyboardInterrupt

    config = TrainingConfig(400, 1e-3, accumulate=2, checkpoint_every=50)
    with pytest.raises(KeyboardInterrupt):
        train(
            network(),
            lambda number: (cut if number == 310 else diverging.batches)(number),
            diverging.loss,
            config,
            run=RunOptions(folder=tmp_path),
        )
    with pytest.raises(Exploded, match=f"stopped at step {160 + PATIENCE}"):
        train(
            model,
            diverging.batch_at,
            diverging.loss,
            config,
            run=RunOptions(folder=tmp_path, resume=True),
        )


def test_without_a_folder_there_is_the_message():
    with pytest.raises(Exploded, match=r"has grown most is 2\.bias") as caught:
        run()
    assert "number" not in str(caught.value)


def test_it_can_be_left_to_run():
    assert run(explosion_factor=None).steps == 400


def test_it_changes_no_weight(tmp_path):
    settings = TrainingConfig(120, 1e-2, explosion_factor=None), TrainingConfig(120, 1e-2, explosion_factor=1.01)
    ends = [train(network(), Batches(INPUTS, batch_size=8, seed=0), Diverging.loss, each) for each in settings]
    assert torch.equal(ends[0].model[0].weight, ends[1].model[0].weight)


@pytest.mark.parametrize("factor", [1.0, 0.5, -3.0, float("nan")])
def test_a_factor_that_cannot_be_meant_is_refused(factor):
    with pytest.raises(ValueError, match=r"explosion_factor is .*; it must be above 1, or None"):
        TrainingConfig(10, 0.1, explosion_factor=factor)
