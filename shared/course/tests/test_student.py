"""Test that calls of exercise code get copies, and that a call which changes one of them is an error."""

import sys
from types import ModuleType

import pytest
import torch

from shared.course.student import ChangedArgumentError, Student


def add_in_place(x):
    with torch.no_grad():
        x += 1
    return x * 1


def add_to_data(x):
    x.data.add_(1)
    return x * 1


def squeeze(x):
    with torch.no_grad():
        x.squeeze_(0)
    return torch.zeros(1)


def mask_ids(ids):
    ids[ids > 1] = -100
    return ids.clone()


def append(x, names):
    names.append("one")
    return x * 1


def change_first(tensors):
    tensors[0].add_(1)
    return tensors[1] * 1


def change_stdlib(x):
    x.data[0] = 5.0
    return x * 1.0


def well_behaved(x):
    return x * 2


FUNCTIONS = {
    each.__name__: each for each in (add_in_place, add_to_data, squeeze, mask_ids, append, change_first, well_behaved)
}


@pytest.fixture
def student(monkeypatch):
    for name, functions in (("exercise", FUNCTIONS), ("reference", {"change": change_stdlib, "same": well_behaved})):
        module = ModuleType(f"lessons.lesson_99_test.{name}")
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return Student("lesson_99_test")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("add_in_place", {"x": torch.zeros(1, 2)}),
        ("add_to_data", {"x": torch.zeros(1, 2)}),
        ("squeeze", {"x": torch.zeros(1, 2)}),
        ("mask_ids", {"ids": torch.arange(4)}),
        ("append", {"x": torch.zeros(1), "names": []}),
        ("change_first", {"tensors": [torch.zeros(2), torch.zeros(2)]}),
    ],
)
def test_changed_argument_is_an_error(student, function, arguments):
    before = repr(arguments)
    with pytest.raises(ChangedArgumentError, match=f"argument {list(arguments)[-1]!r}"):
        student(f"exercise:{function}", **arguments)
    assert repr(arguments) == before


def test_changed_argument_of_the_reference_is_an_error(student):
    with pytest.raises(ChangedArgumentError, match="'x'"):
        student("reference:change", x=torch.zeros(2))
    assert torch.equal(student("reference:same", x=torch.ones(2)), torch.full((2,), 2.0).double())


def test_call_that_changes_nothing_passes(student):
    x = torch.tensor([1.0, torch.nan, torch.inf])
    assert torch.equal(student("exercise:well_behaved", x=x).nan_to_num(9), (x * 2).nan_to_num(9))
