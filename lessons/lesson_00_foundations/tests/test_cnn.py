"""The part `cnn`: convolution, pooling and residual networks agree in every version, and the networks learn."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_00_foundations.cnn import reference
from lessons.lesson_00_foundations.cnn.experiment import figures, train
from lessons.lesson_00_foundations.cnn.experiment.arms import ARMS
from lessons.lesson_00_foundations.cnn.experiment.claims import CLAIMS
from lessons.lesson_00_foundations.cnn.experiment.data import (
    CANVAS,
    DIGIT,
    LEFT,
    POSITIONS,
    RIGHT,
    load_digits,
    place_on_canvas,
    shifted_test_digits,
)
from lessons.lesson_00_foundations.cnn.experiment.exact import check_convolution
from lessons.lesson_00_foundations.cnn.model import MLP, ResNet, convolution, count_parameters, mlp_of_equal_size
from lessons.lesson_00_foundations.cnn.model.resnet import shortcut
from shared.course.context import RunContext
from shared.stdlib import digits
from shared.stdlib.creation import normal
from shared.stdlib.functional import cross_entropy
from shared.stdlib.optim import Adam
from shared.stdlib.training import train as train_in_python
from shared.testing import quick_run, redraw_weights
from shared.torch_conversion import to_stdlib, to_torch

ROOT = Path(__file__).parents[3]
CASES = [(1, 0), (1, 1), (2, 1), (3, 2)]


# ── Convolution ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("convolve", [convolution.conv2d_direct, convolution.conv2d])
@pytest.mark.parametrize(("stride", "padding"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_convolutions_by_hand_equal_pytorchs(convolve, stride, padding, size):
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in [(2, 3, 7, 6), (4, 3, size, size), (4,)]]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    expected, result = F.conv2d(*inputs, stride, padding), convolve(*inputs, stride, padding)
    torch.testing.assert_close(result, expected, atol=1e-9, rtol=0)
    upstream = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(result, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize("convolve", [reference.conv2d_direct, reference.conv2d])
@pytest.mark.parametrize(("stride", "padding"), CASES)
def test_convolutions_in_pure_python_equal_pytorchs(convolve, stride, padding):
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 2, 6, 5), (3, 2, 3, 3), (3,)]
    ]
    expected = F.conv2d(*inputs, stride, padding)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, inputs, upstream)
    plain = [to_stdlib(tensor, requires_grad=True) for tensor in inputs]
    result = convolve(*plain, stride, padding)
    (result * to_stdlib(upstream)).sum().backward()
    torch.testing.assert_close(to_torch(result), expected, atol=1e-9, rtol=0)
    for tensor, gradient in zip(plain, gradients, strict=True):
        torch.testing.assert_close(
            torch.tensor(tensor.grad).reshape(gradient.shape).double(), gradient, atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(("name", "torch_pool"), [("max_pool2d", F.max_pool2d), ("mean_pool2d", F.avg_pool2d)])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2), (2, 3)])
def test_pooling_in_pure_python_equals_pytorchs(name, torch_pool, size, stride):
    images = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    expected = torch_pool(images, size, stride)
    upstream = torch.randn_like(expected)
    expected.backward(upstream)
    plain = to_stdlib(images, requires_grad=True)
    result = getattr(reference, name)(plain, size, stride)
    (result * to_stdlib(upstream)).sum().backward()
    torch.testing.assert_close(to_torch(result), expected, atol=1e-9, rtol=0)
    gradient = torch.tensor(plain.grad, dtype=torch.float64).reshape(images.shape)
    torch.testing.assert_close(gradient, images.grad, atol=1e-9, rtol=0)


@pytest.mark.parametrize("length", [5, 6, 7, 224])
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (5, 3, 0), (2, 2, 0), (1, 4, 2)])
def test_output_size_counts_the_positions_of_a_window(length, size, stride, padding):
    starts = range(-padding, length + padding - size + 1, stride)
    for module in (convolution, reference):
        assert module.output_size(length, size, stride, padding) == len(starts)


def test_a_window_that_does_not_fit_is_an_error():
    for convolve in (convolution.conv2d, convolution.conv2d_direct):
        with pytest.raises(ValueError, match=r"a window of 5 does not fit into 3 \+ 2 · 0"):
            convolve(torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 5, 5))
    with pytest.raises(ValueError, match="expected size ≥ 1, stride ≥ 1"):
        convolution.im2col(torch.zeros(1, 1, 3, 3), 2, stride=0)
    with pytest.raises(ValueError, match="does not fit"):
        reference.im2col(normal((1, 1, 2, 2), 1.0, Random(0)), 3)


def test_the_exact_checks_hold_to_rounding():
    measured = check_convolution(RunContext(seed=0, data="digits", device="cpu", folder=ROOT))
    assert len(measured) == 6
    assert max(measured.values()) < 1e-12


# ── Networks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def equal_networks(seed=0):
    """Return the pure-Python and the PyTorch network with the same random weights."""
    model = ResNet(2, 4, widths=(3, 5), blocks=2, pool=2).double()
    redraw_weights(model).train()
    plain = reference.ResNet(2, 4, (3, 5), 2, 2, Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model


def test_the_residual_networks_compute_the_same():
    plain, model = equal_networks()
    images, labels = torch.rand(3, 2, 8, 6, dtype=torch.float64), [1, 0, 3]
    logits = plain(to_stdlib(images))
    cross_entropy(logits, labels).backward()
    expected = model(images)
    F.cross_entropy(expected, torch.tensor(labels)).backward()
    torch.testing.assert_close(to_torch(logits), expected, atol=1e-9, rtol=0)
    parameters = plain.parameters()
    for name, parameter in model.named_parameters():
        gradient = torch.tensor(parameters[name].grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-9, rtol=0)
        assert gradient.abs().max() > 1e-6, name

    # The norms' running statistics of that batch are equal too, and used in the same way.
    for norm in plain.norms():
        norm.training = False
    model.eval()
    images = torch.rand(2, 2, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(to_torch(plain(to_stdlib(images))), model(images), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("depth", "published", "exact"),
    [(20, 0.27, 269_722), (32, 0.46, 464_154), (44, 0.66, 658_586), (56, 0.85, 853_018), (110, 1.7, 1_727_962)],
)
def test_parameter_counts_equal_table_6(depth, published, exact):
    with torch.device("meta"):
        model, plain = ResNet.for_cifar10(depth), ResNet.for_cifar10(depth, residual=False)
    assert count_parameters(model) == count_parameters(plain) == exact
    assert round(exact / 1e6, 2 if published < 1 else 1) == published
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


def test_impossible_sizes_are_errors():
    with pytest.raises(ValueError, match="21 is not 6n"):
        ResNet.for_cifar10(21)
    with pytest.raises(ValueError, match="make no network"):
        ResNet(1, 10, widths=(), blocks=1)
    with pytest.raises(ValueError, match="would drop some"):
        shortcut(torch.zeros(1, 4, 2, 2), 3, 1)
    with pytest.raises(ValueError, match="no model 'vit'"):
        train.build_model("vit")


def test_a_block_with_a_zero_branch_is_the_identity():
    model = ResNet(1, 3, widths=(4,), blocks=3)
    plain = ResNet(1, 3, widths=(4,), blocks=3, residual=False)
    images = torch.randn(2, 1, 6, 6)
    with torch.no_grad():
        for network in (model, plain):
            for block in network.blocks:
                block.norm2.weight.zero_()
        stem = F.relu(model.stem_norm(model.stem(images)))
        assert torch.equal(model.features(images), stem) and stem.abs().max() > 0.1
        assert (plain.features(images) == 0).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_the_mlp_has_equally_many_parameters(depth):
    cnn = train.build_model("cnn")
    mlp = mlp_of_equal_size(cnn, CANVAS**2, 10, depth=depth)
    assert abs(count_parameters(mlp) / count_parameters(cnn) - 1) < 0.02
    assert count_parameters(MLP(64, 0, 10, depth=0)) == 650


# ── Shifted digits ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_two_halves_share_no_column():
    assert not set(range(*LEFT)) & set(range(*RIGHT))
    assert range(*LEFT).start == 0 and range(*RIGHT).stop == POSITIONS == CANVAS - DIGIT + 1
    data = load_digits()
    for columns in (LEFT, RIGHT):
        canvases, labels = shifted_test_digits(data, columns)
        assert len(canvases) == len(labels) == 4 * len(data.test)
        widest = slice(columns[0], columns[1] - 1 + DIGIT)
        assert canvases[..., widest].count_nonzero() == canvases.count_nonzero() > 0
        assert torch.equal(shifted_test_digits(data, columns)[0], canvases)


def test_a_digit_beyond_the_canvas_is_an_error():
    with pytest.raises(ValueError, match=r"columns run from 9 to 9; on a canvas of 16"):
        place_on_canvas(torch.zeros(1, 1, 8, 8), torch.tensor([0]), torch.tensor([9]))


# ── Learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_networks_learn_to_classify_held_out_digits(tmp_path):
    """After a fifth of the usual steps the CNN is far above chance, and above the MLP at unseen positions."""
    measured = {
        name: train.train_on_shifted_digits(
            RunContext(seed=0, data="digits", device="cpu", folder=tmp_path / name),
            steps=100,
            model=name,
            positions="left",
        )
        for name in ("cnn", "mlp")
    }
    assert measured["cnn"]["accuracy"] > 0.75
    assert measured["cnn"]["accuracy_right"] > 0.6
    assert measured["mlp"]["accuracy_right"] < 0.25
    json.dumps(measured)


def test_arms_and_claims_fit_together():
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names) and {arm.part for arm in ARMS} == {"cnn"}
    assert {claim.kind for claim in CLAIMS} == {"exact", "learns", "paper"}
    assert all(set(claim.arms) <= set(names) for claim in CLAIMS)
    assert set(figures.CAPTIONS) and all(name.startswith("cnn_") for name in figures.CAPTIONS)


def test_the_reference_runs_with_nothing_installed():
    done = quick_run("lessons.lesson_00_foundations.cnn.reference")
    assert "accuracy on 359 held-out digits" in done.stdout


def test_the_pure_python_network_learns():
    """The loss on eight canvases, which can be memorized, falls."""
    data, random = digits.load().subset(list(range(8))), Random(0)
    model = reference.ResNet(1, 10, (4, 6), 1, 2, random)
    canvases = reference.canvases_to_tensor(reference.shift_randomly(data.images, random))
    optimizer = Adam(model.parameters().values(), 2e-2)
    losses = train_in_python(model, lambda step: cross_entropy(model(canvases), data.labels), optimizer, 15)
    assert losses[-1] < 0.5 * losses[0]
