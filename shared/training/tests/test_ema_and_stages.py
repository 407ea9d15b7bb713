import itertools

import pytest
import torch
from torch import nn

from shared.training import Batches, Evaluation, Stage, TrainingConfig, train
from shared.training.ema import ExponentialMovingAverage
from shared.training.stages import stage_at, training_mode


def test_the_average_has_its_closed_form():
    """average = Σ weight_t · (1 − decay_t) · Π later decays, plus what is left of the beginning."""
    model = nn.Linear(1, 1, bias=False).double()
    ema = ExponentialMovingAverage(model, 0.7)
    values = [model.weight.item(), 2.0, -1.0, 0.5, 3.0, 1.0, 4.0, -2.0]
    for step, value in enumerate(values[1:]):
        nn.init.constant_(model.weight, value)
        ema.update(model, step)
    decays = [min(0.7, (1 + step) / (10 + step)) for step in range(len(values) - 1)]
    shares = [1.0, *(1 - decay for decay in decays)]
    for later, decay in enumerate(decays, start=1):
        shares[:later] = [share * decay for share in shares[:later]]
    want = sum(share * value for share, value in zip(shares, values, strict=True))
    assert sum(shares) == pytest.approx(1.0)
    assert ema.average.weight.item() == pytest.approx(want, rel=1e-12)


def test_the_decay_grows_to_the_one_asked_for():
    ema = ExponentialMovingAverage(nn.Linear(1, 1), 0.99)
    assert ema.decay_at(0) == pytest.approx(0.1)
    assert ema.decay_at(100) == pytest.approx(101 / 110)
    assert ema.decay_at(10_000) == 0.99


def test_the_average_is_apart_from_the_model_and_copies_its_buffers():
    model = nn.BatchNorm1d(2)
    ema = ExponentialMovingAverage(model, 0.5)
    model(torch.randn(8, 2))
    assert not torch.equal(ema.average.running_mean, model.running_mean)
    ema.update(model, 0)
    assert torch.equal(ema.average.running_mean, model.running_mean)
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def two_parts() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "eye": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
            "mouth": nn.Linear(4, 1),
        }
    )


def loss(model, batch):
    return model["mouth"](model["eye"](batch)).square().mean()


def run(model, stages, steps, **settings):
    config = TrainingConfig(steps, 0.1, weight_decay=0.5, **settings)
    return train(model, Batches(torch.randn(32, 3), batch_size=8, seed=0), loss, config, stages=stages)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_frozen_part_does_not_move_by_one_bit(optimizer):
    model = two_parts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, (Stage(4, ("mouth.*",)),), 4, optimizer=optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("eye."), name


def test_a_later_stage_sets_it_free():
    model = two_parts()
    before = model["eye"][0].weight.detach().clone()
    mouths = []

    def watch(model):
        mouths.append((torch.equal(model["eye"][0].weight, before), model["mouth"].weight.clone()))
        return {}

    config = TrainingConfig(6, 0.1)
    stages = (Stage(3, ("mouth.*",)), Stage(3, ("eye.*",)))
    batches = Batches(torch.randn(32, 3), batch_size=8, seed=0)
    train(
        model,
        batches,
        loss,
        config,
        evaluation=Evaluation(watch, every=1),
        stages=stages,
    )
    assert [frozen for frozen, _ in mouths] == [True, True, True, False, False, False]
    moves = [not torch.equal(a, b) for (_, a), (_, b) in itertools.pairwise(mouths)]
    assert moves == [True, True, False, False, False]


def test_stages_end_with_the_run():
    model = two_parts()
    run(model, (Stage(2, ("mouth.*",)),), 2)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_stage_at_the_borders():
    stages = (Stage(2, ("a",)), Stage(3, ("b",)))
    assert [stage_at(stages, step).trainable[0] for step in range(5)] == ["a", "a", "b", "b", "b"]
    assert stage_at((), 3) is None


def test_a_frozen_part_is_in_evaluation_mode():
    model = two_parts()
    model["eye"].requires_grad_(False)
    training_mode(model)
    assert model.training and model["mouth"].training
    assert not any(module.training for module in model["eye"].modules())


def test_stages_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"2 \+ 3 steps and the run 6"):
        run(two_parts(), (Stage(2, ("eye.*",)), Stage(3, ("mouth.*",))), 6)
    with pytest.raises(ValueError, match=r"'ear\.\*'.*eye\.0\.weight"):
        run(two_parts(), (Stage(6, ("ear.*",)),), 6)
