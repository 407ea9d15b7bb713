import itertools

import pytest
import torch
from torch import nn

from shared.training import Batches, Evaluation, Stage, TrainingConfig, train
from shared.training.ema import ExponentialMovingAverage
from shared.training.stages import set_training_mode, stage_at


def test_the_average_has_its_closed_form():
    """average = Σ weight_t · (1 − decay_t) · Π later decays, plus the rest of the initial weight."""
    model = nn.Linear(1, 1, bias=False).double()
    ema = ExponentialMovingAverage(model, 0.7)
    values = [model.weight.item(), 2.0, -1.0, 0.5, 3.0, 1.0, 4.0, -2.0]
    for step, value in enumerate(values[1:]):
        nn.init.constant_(model.weight, value)
        ema.update(model, step)
    decays = [min(0.7, (1 + step) / (10 + step)) for step in range(len(values) - 1)]
    factors = [1.0, *(1 - decay for decay in decays)]
    for later, decay in enumerate(decays, start=1):
        factors[:later] = [factor * decay for factor in factors[:later]]
    expected = sum(factor * value for factor, value in zip(factors, values, strict=True))
    assert sum(factors) == pytest.approx(1.0)
    assert ema.average.weight.item() == pytest.approx(expected, rel=1e-12)


def test_the_decay_grows_to_the_configured_one():
    ema = ExponentialMovingAverage(nn.Linear(1, 1), 0.99)
    assert ema.decay_at(0) == pytest.approx(0.1)
    assert ema.decay_at(100) == pytest.approx(101 / 110)
    assert ema.decay_at(10_000) == 0.99


def test_the_average_shares_nothing_with_the_model_and_copies_its_buffers():
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
            "encoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
            "head": nn.Linear(4, 1),
        }
    )


def loss(model, batch):
    return model["head"](model["encoder"](batch)).square().mean()


def run(model, stages, steps, **settings):
    config = TrainingConfig(steps, 0.1, weight_decay=0.5, **settings)
    return train(model, Batches(torch.randn(32, 3), batch_size=8, seed=0), loss, config, stages=stages)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_frozen_part_stays_bit_identical(optimizer):
    model = two_parts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, (Stage(4, ("head.*",)),), 4, optimizer=optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


def test_a_later_stage_unfreezes_a_part():
    model = two_parts()
    before = model["encoder"][0].weight.detach().clone()
    records = []

    def record(model):
        records.append((torch.equal(model["encoder"][0].weight, before), model["head"].weight.clone()))
        return {}

    config = TrainingConfig(6, 0.1)
    stages = (Stage(3, ("head.*",)), Stage(3, ("encoder.*",)))
    batches = Batches(torch.randn(32, 3), batch_size=8, seed=0)
    train(
        model,
        batches,
        loss,
        config,
        evaluation=Evaluation(record, every=1),
        stages=stages,
    )
    assert [frozen for frozen, _ in records] == [True, True, True, False, False, False]
    changes = [not torch.equal(a, b) for (_, a), (_, b) in itertools.pairwise(records)]
    assert changes == [True, True, False, False, False]


def test_stages_end_with_the_run():
    model = two_parts()
    run(model, (Stage(2, ("head.*",)),), 2)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_stage_at_the_boundaries():
    stages = (Stage(2, ("a",)), Stage(3, ("b",)))
    assert [stage_at(stages, step).trainable[0] for step in range(5)] == ["a", "a", "b", "b", "b"]
    assert stage_at((), 3) is None


def test_a_frozen_part_is_in_evaluation_mode():
    model = two_parts()
    model["encoder"].requires_grad_(False)
    set_training_mode(model)
    assert model.training and model["head"].training
    assert not any(module.training for module in model["encoder"].modules())


def test_invalid_stages_are_refused():
    with pytest.raises(ValueError, match=r"2 \+ 3 steps and the run has 6"):
        run(two_parts(), (Stage(2, ("encoder.*",)), Stage(3, ("head.*",))), 6)
    with pytest.raises(ValueError, match=r"'decoder\.\*'.*encoder\.0\.weight"):
        run(two_parts(), (Stage(6, ("decoder.*",)),), 6)
