from typing import NamedTuple

import numpy as np
import pytest
import torch

from shared.errors import CourseError
from shared.training import Batches
from shared.training.batches import split_batch, to_device


def test_an_epoch_has_every_sample_once_when_they_fit():
    batches = Batches(torch.arange(12), batch_size=4, seed=0)
    for epoch in range(3):
        samples = torch.cat([batches(epoch * 3 + position) for position in range(3)])
        assert sorted(samples.tolist()) == list(range(12))


def test_epochs_and_seeds_differ_in_order():
    batches = Batches(torch.arange(100), batch_size=100, seed=0)
    assert not torch.equal(batches(0), batches(1))
    assert not torch.equal(batches(0), Batches(torch.arange(100), batch_size=100, seed=1)(0))


def test_a_batch_is_a_pure_function_of_its_index():
    def add_noise(batch, generator):
        return batch + torch.rand(batch.shape, generator=generator)

    first = Batches(torch.arange(50.0), batch_size=8, seed=3, augment=add_noise)
    second = Batches(torch.arange(50.0), batch_size=8, seed=3, augment=add_noise)
    forwards = {index: first(index) for index in range(20)}
    torch.rand(7)  # the global generator has no influence
    for index in reversed(range(20)):
        assert torch.equal(second(index), forwards[index])


def test_augmentation_differs_from_batch_to_batch():
    batches = Batches(torch.zeros(4), batch_size=4, seed=0, augment=lambda b, g: torch.rand(4, generator=g))
    assert not torch.equal(batches(0), batches(1))


def test_rows_of_several_arrays_stay_together():
    inputs, labels = np.arange(30).reshape(15, 2), torch.arange(0, 30, 2)
    batches = Batches(inputs, labels, batch_size=4, seed=0)
    for index in range(6):
        rows, targets = batches(index)
        assert rows.shape == (4, 2) and torch.equal(rows[:, 0], targets)


def test_samples_that_fill_no_batch_are_left_out_of_the_epoch():
    batches = Batches(torch.arange(10), batch_size=4, seed=0)
    assert batches.per_epoch == 2
    assert len({value for index in (0, 1) for value in batches(index).tolist()}) == 8


def test_the_order_is_the_same_on_every_machine():
    assert Batches(torch.arange(8), batch_size=8, seed=5)(0).tolist() == [1, 4, 2, 3, 7, 5, 6, 0]


@pytest.mark.parametrize(
    ("arrays", "batch_size", "message"),
    [
        ((torch.zeros(3), torch.zeros(4)), 2, r"\[3, 4\]"),
        ((torch.zeros(3),), 0, "batch_size is 0"),
        ((), 1, r"\[\]"),
    ],
)
def test_arrays_that_cannot_be_batched_are_refused(arrays, batch_size, message):
    with pytest.raises(ValueError, match=message):
        Batches(*arrays, batch_size=batch_size, seed=0)


def test_fewer_samples_than_a_batch_make_smaller_batches(monkeypatch):
    batches = Batches(torch.arange(3), batch_size=4, seed=0)
    assert batches.batch_size == 3 and batches.per_epoch == 1
    assert sorted(batches(0).tolist()) == sorted(batches(7).tolist()) == [0, 1, 2]
    monkeypatch.setattr("shared.training.batches.world_size", lambda: 2)
    assert Batches(torch.arange(3), batch_size=4, seed=0)(0).shape == (2,)
    assert Batches(torch.arange(9), batch_size=4, seed=0)(0).shape == (4,)


def test_no_samples_are_one_line_that_says_how_many_are_needed(monkeypatch):
    with pytest.raises(CourseError, match=r"has 0 samples; at least 1 are needed, .* 4 fill a batch"):
        Batches(torch.zeros(0, 2), batch_size=4, seed=0)
    monkeypatch.setattr("shared.training.batches.world_size", lambda: 8)
    with pytest.raises(CourseError, match="has 5 samples; at least 8 are needed, one per process"):
        Batches(torch.zeros(5), batch_size=16, seed=0)


def test_a_nested_batch_is_moved_completely():
    batch = {"images": [torch.zeros(2), torch.ones(2)], "names": ("a", torch.zeros(1))}
    moved = to_device(batch, torch.device("meta"))
    assert moved["images"][1].is_meta and moved["names"][1].is_meta and moved["names"][0] == "a"


class Pair(NamedTuple):
    first: torch.Tensor
    names: list


def test_the_parts_of_all_processes_make_up_the_batch():
    batch = {
        "x": torch.arange(12).reshape(6, 2),
        "deep": [Pair(torch.arange(6), list("abcdef")), np.arange(6)],
        "temperature": torch.tensor(2.0),
        "step": 7,
    }
    parts = [split_batch(batch, process, 3) for process in range(3)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert torch.equal(torch.cat([part["deep"][0].first for part in parts]), batch["deep"][0].first)
    assert [name for part in parts for name in part["deep"][0].names] == list("abcdef")
    assert np.concatenate([part["deep"][1] for part in parts]).tolist() == list(range(6))
    assert all(part["temperature"] == 2.0 and part["step"] == 7 for part in parts)
    assert isinstance(parts[0]["deep"][0], Pair)
    assert split_batch(batch, 0, 1) is batch


def test_batches_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="6 rows does not divide among 4 processes; make it a multiple of 4"):
        split_batch(torch.zeros(6, 2), 0, 4)
    with pytest.raises(ValueError, match="tensors of 2 and 6 rows; give every tensor one row per sample"):
        split_batch((torch.zeros(6), torch.zeros(2)), 0, 2)
    with pytest.raises(ValueError, match="it has no tensor"):
        split_batch({"seed": 3}, 0, 2)
