"""The exercises of the part `cnn`: each test checks a property that small mistakes break."""

import pytest
import torch
from torch.nn import functional as F

CASES = [(1, 0), (1, 1), (2, 1), (3, 2)]


def assert_close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


def gradients_of(function, inputs, upstream):
    """Return PyTorch's gradients of the named inputs."""
    tensors = {name: value.double().requires_grad_() for name, value in inputs.items()}
    gradients = torch.autograd.grad(function(*tensors.values()), list(tensors.values()), upstream.double())
    return dict(zip(tensors, gradients, strict=True))


# ── 0.11 and 0.16: convolution by its definition ──────────────────────────────────────────────────────────────────────

DIRECT = "cnn.model.convolution:conv2d_direct"


@pytest.mark.exercise("0.11")
def test_a_convolution_computed_by_hand(student):
    images = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    kernel = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]], [[[0.0, 2.0], [0.0, 0.0]]]])
    result = student(DIRECT, images=images, kernel=kernel, bias=torch.tensor([10.0, 0.0]))
    assert_close(result, torch.tensor([[[[6.0, 6.0], [6.0, 6.0]], [[4.0, 6.0], [10.0, 12.0]]]]))


@pytest.mark.exercise("0.11")
@pytest.mark.parametrize(("stride", "padding"), CASES)
def test_a_convolution_equals_pytorchs(student, stride, padding):
    inputs = {"images": torch.randn(2, 3, 7, 6), "kernel": torch.randn(4, 3, 3, 3), "bias": torch.randn(4)}
    expected = F.conv2d(*inputs.values(), stride, padding)
    upstream = torch.randn_like(expected)
    result, gradients = student(DIRECT, upstream=upstream, stride=stride, padding=padding, **inputs)
    assert_close(result, expected, 1e-4)
    for name, gradient in gradients_of(lambda *x: F.conv2d(*x, stride, padding), inputs, upstream).items():
        assert_close(gradients[name], gradient, 1e-3)


@pytest.mark.exercise("0.11")
def test_a_convolution_without_bias(student):
    images, kernel = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 2, 2)
    assert_close(student(DIRECT, images=images, kernel=kernel), F.conv2d(images, kernel), 1e-4)


@pytest.mark.exercise("0.16")
@pytest.mark.parametrize(("stride", "padding"), CASES)
def test_the_gradients_of_a_convolution_equal_pytorchs(student, stride, padding):
    inputs = {"images": torch.randn(2, 2, 5, 4), "kernel": torch.randn(3, 2, 3, 3), "bias": torch.randn(3)}
    upstream = torch.randn_like(F.conv2d(*inputs.values(), stride, padding))
    _, gradients = student("cnn.reference:conv2d_direct", upstream=upstream, stride=stride, padding=padding, **inputs)
    for name, gradient in gradients_of(lambda *x: F.conv2d(*x, stride, padding), inputs, upstream).items():
        assert gradient.abs().max() > 0.1
        assert_close(gradients[name], gradient, 1e-5)


# ── 0.12 and 0.13: windows as rows ────────────────────────────────────────────────────────────────────────────────────

IM2COL = "cnn.model.convolution:im2col"


@pytest.mark.exercise("0.12")
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 1, 0), (3, 2, 1), (1, 1, 0), (3, 1, 2)])
def test_every_window_becomes_a_row(student, size, stride, padding):
    images = torch.randn(2, 3, 5, 6)
    rows = student(IM2COL, images=images, size=size, stride=stride, padding=padding)
    assert_close(rows, F.unfold(images, size, padding=padding, stride=stride).transpose(1, 2))


@pytest.mark.exercise("0.12")
@pytest.mark.parametrize("shape", [(1, 1, 2, 5), (1, 1, 5, 2)])
def test_a_window_that_does_not_fit_is_an_error(student, shape):
    with pytest.raises(ValueError, match="3"):
        student(IM2COL, images=torch.randn(shape), size=3)


@pytest.mark.exercise("0.12")
def test_a_pixel_gets_gradients_from_every_window_that_contains_it(student):
    images = torch.randn(1, 1, 4, 4)
    _, gradients = student(IM2COL, upstream=torch.ones(1, 4, 9), images=images, size=3)
    expected = torch.tensor([[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]])
    assert_close(gradients["images"], expected[None, None])


POOLS = {"max": F.max_pool2d, "mean": F.avg_pool2d}


@pytest.mark.exercise("0.13")
@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 1), (2, 3)])
def test_pooling_treats_each_channel_separately(student, kind, size, stride):
    images = torch.randn(2, 3, 6, 7)
    expected = POOLS[kind](images, size, stride)
    upstream = torch.randn_like(expected)
    result, gradients = student(
        f"cnn.model.convolution:{kind}_pool2d", upstream=upstream, images=images, size=size, stride=stride
    )
    assert_close(result, expected)
    expected = gradients_of(lambda x: POOLS[kind](x, size, stride), {"images": images}, upstream)
    assert_close(gradients["images"], expected["images"])


# ── 0.14: the shortcut ────────────────────────────────────────────────────────────────────────────────────────────────

SHORTCUT = "cnn.model.resnet:shortcut"


@pytest.mark.exercise("0.14")
def test_a_shortcut_between_equal_shapes_is_the_identity(student):
    x, upstream = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    result, gradients = student(SHORTCUT, upstream=upstream, x=x, out=3, stride=1)
    assert_close(result, x)
    assert_close(gradients["x"], upstream)


@pytest.mark.exercise("0.14")
@pytest.mark.parametrize("side", [4, 5])
def test_a_shortcut_takes_every_second_pixel_and_adds_zero_channels(student, side):
    x = torch.randn(2, 3, side, 6) + 3
    result = student(SHORTCUT, x=x, out=5, stride=2)
    assert result.shape == (2, 5, (side + 1) // 2, 3)
    for row in range(result.shape[2]):
        for column in range(3):
            assert_close(result[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert (result[:, 3:] == 0).all()


# ── 0.15: digits on a canvas ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.15")
def test_each_image_is_at_its_position(student):
    images = torch.rand(3, 2, 3, 4) + 0.5
    rows, columns = torch.tensor([0, 5, 2]), torch.tensor([4, 0, 3])
    canvas = student("cnn.experiment.data:place_on_canvas", images=images, rows=rows, columns=columns, side=8)
    assert canvas.shape == (3, 2, 8, 8)
    for image, row, column, placed in zip(images, rows.tolist(), columns.tolist(), canvas, strict=True):
        assert_close(placed[:, row : row + 3, column : column + 4], image)
    assert_close(canvas.sum(dim=(1, 2, 3)), images.sum(dim=(1, 2, 3)), 1e-4)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        "cnn.model.convolution:max_pool2d",
        {"images": torch.ones(1, 1, 4, 2), "size": 2, "stride": 2},
        [(1, 1, 2, 1)],
        marks=pytest.mark.exercise("0.13"),
    ),
    pytest.param(
        "cnn.model.convolution:windows_per_channel",
        {"images": torch.ones(1, 1, 4, 2), "size": 2, "stride": 2},
        [(1, 1, 2, 1, 4)],
        marks=pytest.mark.exercise("0.13"),
    ),
    pytest.param(
        SHORTCUT,
        {"x": torch.ones(1, 1, 1, 1), "out": 1, "stride": 2},
        [(1, 1, 1, 1)],
        marks=pytest.mark.exercise("0.14"),
    ),
    pytest.param(
        "cnn.experiment.data:place_on_canvas",
        {"images": torch.ones(1, 1, 2, 2), "rows": torch.tensor([1]), "columns": torch.tensor([0]), "side": 3},
        [(1, 1, 3, 3)],
        marks=pytest.mark.exercise("0.15"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
