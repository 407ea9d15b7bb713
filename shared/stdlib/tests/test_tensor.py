"""Test every operator against finite differences and PyTorch in float64: values and gradients to 1e-9."""

import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.stdlib import functional as F
from shared.stdlib.autograd import no_grad
from shared.stdlib.creation import full, normal, tensor, uniform
from shared.stdlib.tensor import Tensor

# name: (shapes of the inputs, engine, PyTorch's); a log or a root gets numbers made positive first, by both.
OPERATORS = {
    "add": ([(2, 3), (2, 3)], lambda a, b: a + b, None),
    "add a row": ([(2, 3), (3,)], lambda a, b: a + b, None),
    "add a column": ([(2, 3), (2, 1)], lambda a, b: a + b, None),
    "row plus column": ([(1, 3), (2, 1)], lambda a, b: a + b, None),
    "subtract": ([(2, 1, 3), (4, 1)], lambda a, b: a - b, None),
    "multiply": ([(2, 3), (1, 3)], lambda a, b: a * b, None),
    "divide": ([(2, 3), (2, 1)], lambda a, b: a / (b * b + 1.0), None),
    "numbers on either side": ([(2, 3)], lambda a: 2.0 - (3.0 * a + 1.0) / 4.0 + 1.0 / (a * a + 1.0), None),
    "negative": ([(2, 3)], lambda a: -a, None),
    "power": ([(2, 3)], lambda a: (a * a + 0.5) ** 1.7, None),
    "cube": ([(2, 3)], lambda a: a**3, None),
    "exp": ([(2, 3)], lambda a: a.exp(), None),
    "log": ([(2, 3)], lambda a: (a * a + 0.5).log(), None),
    "sqrt": ([(2, 3)], lambda a: (a * a + 0.5).sqrt(), None),
    "tanh": ([(2, 3)], lambda a: a.tanh(), None),
    "relu": ([(3, 4)], lambda a: a.relu(), None),
    "used twice": ([(2, 3)], lambda a: a * a + a * a.exp(), None),
    "sum": ([(2, 3, 2)], lambda a: a.sum(), None),
    "sum first": ([(2, 3, 2)], lambda a: a.sum(0), None),
    "sum middle": ([(2, 3, 2)], lambda a: a.sum(1), None),
    "sum last": ([(2, 3, 2)], lambda a: a.sum(-1), None),
    "sum keepdims": ([(2, 3, 2)], lambda a: a.sum(1, True), None),
    "mean": ([(2, 3, 2)], lambda a: a.mean(), None),
    "mean middle": ([(2, 3, 2)], lambda a: a.mean(1), None),
    "max": ([(2, 3, 4)], lambda a: a.max(1), lambda a: a.max(1).values),
    "reshape": ([(2, 6)], lambda a: a.reshape(3, 4), None),
    "reshape the rest": ([(2, 6)], lambda a: a.reshape(3, -1, 2), None),
    "expand": ([(3, 1)], lambda a: a.expand(2, 3, 4), None),
    "permute": ([(2, 3, 4)], lambda a: a.permute(2, 0, 1), None),
    "transpose": ([(2, 3, 4)], lambda a: a.transpose(0, -1), None),
    "one place": ([(2, 3, 4)], lambda a: a[1], None),
    "from the end": ([(2, 3, 4)], lambda a: a[-1, :, -2], None),
    "slices": ([(4, 5)], lambda a: a[1:3, ::2], None),
    "matrix": ([(2, 3), (3, 4)], lambda a, b: a @ b, None),
    "large matrix": ([(6, 20), (20, 5)], lambda a, b: a @ b, None),
    "batch by matrix": ([(2, 5, 3), (3, 4)], lambda a, b: a @ b, None),
    "batch by batch": ([(2, 5, 9), (2, 9, 4)], lambda a, b: a @ b, None),
    "broadcast batches": ([(3, 1, 2, 4), (5, 4, 2)], lambda a, b: a @ b, None),
    "concatenate": ([(2, 3), (4, 3)], lambda a, b: F.concatenate([a, b]), lambda a, b: torch.cat([a, b])),
    "concatenate inside": (
        [(2, 3, 2), (2, 1, 2)],
        lambda a, b: F.concatenate([a, b], 1),
        lambda a, b: torch.cat([a, b], 1),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(name, check):
    check(name, *OPERATORS[name])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_broadcasting_of_any_shapes(check, data):
    target = data.draw(st.lists(st.integers(1, 3), max_size=4))
    shapes = []
    for _ in range(2):
        sizes = target[data.draw(st.integers(0, len(target))) :]
        shapes.append(tuple(1 if data.draw(st.booleans()) else size for size in sizes))
    check(str(shapes), shapes, lambda a, b: a * b - b, None)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([(), (1,), (2,), (3, 1)]),
    st.sampled_from([(), (2,)]),
)
def test_matrix_products_of_any_shapes(rows, inner, columns, left_batch, right_batch):
    shapes = [(*left_batch, rows, inner), (*right_batch, inner, columns)]
    random = Random(str(shapes))
    a, b = (normal(shape, 1.0, random, requires_grad=True) for shape in shapes)
    x, y = (torch.tensor(t.tolist(), dtype=torch.float64, requires_grad=True) for t in (a, b))
    weights = normal((a @ b).shape, 1.0, random)
    (a @ b * weights).sum().backward()
    (x @ y * torch.tensor(weights.tolist(), dtype=torch.float64)).sum().backward()
    assert a.grad == pytest.approx(x.grad.flatten().tolist(), abs=1e-9)
    assert b.grad == pytest.approx(y.grad.flatten().tolist(), abs=1e-9)


def test_gradients_add_up_over_losses_and_uses():
    x = tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (x * 3.0).sum().backward()
    assert x.grad == [5.0, 7.0]


def test_graph_deeper_than_the_recursion_limit():
    x = y = tensor(1.0, requires_grad=True)
    for _ in range(5000):
        y = y + 0.001
    y.backward()
    assert x.grad == [1.0]


def test_no_grad_records_nothing_and_is_left_on_errors():
    x = tensor([1.0], requires_grad=True)
    with pytest.raises(ZeroDivisionError), no_grad():
        assert not (x * 2.0).requires_grad
        x / 0.0
    assert (x * 2.0).requires_grad


def test_random_numbers_come_from_the_passed_generator():
    assert normal((2, 3), 0.5, Random(7)).data == normal((2, 3), 0.5, Random(7)).data
    drawn = uniform((1000,), 0.3, Random(1)).data
    assert max(map(abs, drawn)) <= 0.3 < 0.31 < max(map(abs, uniform((1000,), 3.0, Random(1)).data))
    spread = math.sqrt(sum(x * x for x in normal((4000,), 0.5, Random(1)).data) / 4000)
    assert spread == pytest.approx(0.5, rel=0.05)


def test_nested_lists_round_trip():
    nested = [[[1.0, 2.0], [3.0, 4.0]]]
    assert tensor(nested).shape == (1, 2, 2) and tensor(nested).tolist() == nested
    assert tensor(3).tolist() == 3.0 and full((2,), 1.5).tolist() == [1.5, 1.5]
    assert "1.5" in repr(full((2,), 1.5)) and "(5, 5)" in repr(full((5, 5), 0.0))


@pytest.mark.parametrize(
    "wrong,message",
    [
        (lambda: Tensor([1.0, 2.0], (3,)), r"\(3,\) needs 3 numbers, got 2"),
        (lambda: tensor([[1.0, 2.0], [3.0]]), "differ in length"),
        (lambda: tensor([1.0, 2.0]).backward(), "needs a scalar"),
        (lambda: tensor(1.0).backward(), "requires_grad"),
        (lambda: tensor([1.0, 2.0]) + tensor([1.0, 2.0, 3.0]), "sizes 2 and 3"),
        (lambda: full((2, 3), 0.0) @ full((2, 3), 0.0), "inner sizes 3 and 2"),
        (lambda: full((3,), 0.0) @ full((3, 2), 0.0), "two axes"),
        (lambda: full((2, 3), 0.0).reshape(4, 2), "cannot become"),
        (lambda: full((2, 3), 0.0).reshape(4, -1), "cannot become"),
        (lambda: full((2, 3), 0.0).permute(0, 0), "each of its 2 axes once"),
        (lambda: full((2, 3), 0.0).expand(1, 3), "does not expand"),
        (lambda: full((2, 3), 0.0).sum(2), "axis 2"),
        (lambda: full((2, 3), 0.0)[2], "there are 2 places"),
        (lambda: full((2, 3), 0.0)[0, 0, 0], "3 indices"),
        (lambda: full((2, 3), 0.0).item(), "one number"),
        (lambda: F.concatenate([full((2, 3), 0.0), full((2, 4), 0.0)]), "differ on an axis other than 0"),
    ],
)
def test_invalid_arguments_are_rejected(wrong, message):
    with pytest.raises((ValueError, IndexError), match=message):
        wrong()
