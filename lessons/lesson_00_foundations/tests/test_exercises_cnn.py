"""The exercises of the CNN part: each test says what must hold, and a small mistake breaks one of them."""

import pytest
import torch
from torch.nn import functional as F

CASES = [(1, 0), (1, 1), (2, 1), (3, 2)]


def close(given, expected, tolerance=1e-5):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


def gradients_of(function, inputs, upstream):
    """What PyTorch finds for the named inputs."""
    own = {name: value.double().requires_grad_() for name, value in inputs.items()}
    found = torch.autograd.grad(function(*own.values()), list(own.values()), upstream.double())
    return dict(zip(own, found, strict=True))


# ── 0.11 and 0.16: convolution by its definition ──────────────────────────────────────────────────────────────────────

DIRECT = "cnn.convolution:conv2d_direct"


@pytest.mark.exercise("0.11")
def test_a_window_slides_over_numbers_one_can_check_by_hand(student):
    images = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]])
    kernel = torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]], [[[0.0, 2.0], [0.0, 0.0]]]])
    found = student(DIRECT, images=images, kernel=kernel, bias=torch.tensor([10.0, 0.0]))
    close(found, torch.tensor([[[[6.0, 6.0], [6.0, 6.0]], [[4.0, 6.0], [10.0, 12.0]]]]))


@pytest.mark.exercise("0.11")
@pytest.mark.parametrize(("stride", "padding"), CASES)
def test_a_convolution_by_its_definition(student, stride, padding):
    inputs = {"images": torch.randn(2, 3, 7, 6), "kernel": torch.randn(4, 3, 3, 3), "bias": torch.randn(4)}
    expected = F.conv2d(*inputs.values(), stride, padding)
    upstream = torch.randn_like(expected)
    found, gradients = student(DIRECT, upstream=upstream, stride=stride, padding=padding, **inputs)
    close(found, expected, 1e-4)
    for name, gradient in gradients_of(lambda *x: F.conv2d(*x, stride, padding), inputs, upstream).items():
        close(gradients[name], gradient, 1e-3)


@pytest.mark.exercise("0.11")
def test_a_convolution_without_bias(student):
    images, kernel = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 2, 2)
    close(student(DIRECT, images=images, kernel=kernel), F.conv2d(images, kernel), 1e-4)


@pytest.mark.exercise("0.16")
@pytest.mark.parametrize(("stride", "padding"), CASES)
def test_every_product_is_differentiated_twice(student, stride, padding):
    inputs = {"images": torch.randn(2, 2, 5, 4), "kernel": torch.randn(3, 2, 3, 3), "bias": torch.randn(3)}
    upstream = torch.randn_like(F.conv2d(*inputs.values(), stride, padding))
    _, gradients = student("cnn.reference:conv2d_direct", upstream=upstream, stride=stride, padding=padding, **inputs)
    for name, gradient in gradients_of(lambda *x: F.conv2d(*x, stride, padding), inputs, upstream).items():
        assert gradient.abs().max() > 0.1
        close(gradients[name], gradient, 1e-5)


# ── 0.12 and 0.13: windows as rows ────────────────────────────────────────────────────────────────────────────────────

IM2COL = "cnn.convolution:im2col"


@pytest.mark.exercise("0.12")
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 1, 0), (3, 2, 1), (1, 1, 0), (3, 1, 2)])
def test_every_window_becomes_a_row(student, size, stride, padding):
    images = torch.randn(2, 3, 5, 6)
    rows = student(IM2COL, images=images, size=size, stride=stride, padding=padding)
    close(rows, F.unfold(images, size, padding=padding, stride=stride).transpose(1, 2))


@pytest.mark.exercise("0.12")
@pytest.mark.parametrize("shape", [(1, 1, 2, 5), (1, 1, 5, 2)])
def test_where_no_window_fits_one_is_told(student, shape):
    with pytest.raises(ValueError, match="3"):
        student(IM2COL, images=torch.randn(shape), size=3)


@pytest.mark.exercise("0.12")
def test_a_pixel_hears_from_every_window_it_lies_in(student):
    images = torch.randn(1, 1, 4, 4)
    _, gradients = student(IM2COL, upstream=torch.ones(1, 4, 9), images=images, size=3)
    expected = torch.tensor([[1.0, 2.0, 2.0, 1.0], [2.0, 4.0, 4.0, 2.0], [2.0, 4.0, 4.0, 2.0], [1.0, 2.0, 2.0, 1.0]])
    close(gradients["images"], expected[None, None])


POOLS = {"max": F.max_pool2d, "mean": F.avg_pool2d}


@pytest.mark.exercise("0.13")
@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 1), (2, 3)])
def test_pooling_looks_at_each_channel_alone(student, kind, size, stride):
    images = torch.randn(2, 3, 6, 7)
    expected = POOLS[kind](images, size, stride)
    upstream = torch.randn_like(expected)
    found, gradients = student(
        f"cnn.convolution:{kind}_pool2d", upstream=upstream, images=images, size=size, stride=stride
    )
    close(found, expected)
    expected = gradients_of(lambda x: POOLS[kind](x, size, stride), {"images": images}, upstream)
    close(gradients["images"], expected["images"])


# ── 0.14: the shortcut ────────────────────────────────────────────────────────────────────────────────────────────────

SHORTCUT = "cnn.model:shortcut"


@pytest.mark.exercise("0.14")
def test_a_shortcut_between_equals_changes_nothing(student):
    x, upstream = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    found, gradients = student(SHORTCUT, upstream=upstream, x=x, out=3, stride=1)
    close(found, x)
    close(gradients["x"], upstream)


@pytest.mark.exercise("0.14")
@pytest.mark.parametrize("side", [4, 5])
def test_a_shortcut_thins_places_and_adds_empty_channels(student, side):
    x = torch.randn(2, 3, side, 6) + 3
    found = student(SHORTCUT, x=x, out=5, stride=2)
    assert found.shape == (2, 5, (side + 1) // 2, 3)
    for row in range(found.shape[2]):
        for column in range(3):
            close(found[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert (found[:, 3:] == 0).all()


# ── 0.15: digits on a canvas ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.exercise("0.15")
def test_each_image_lies_where_it_should(student):
    images = torch.rand(3, 2, 3, 4) + 0.5
    rows, columns = torch.tensor([0, 5, 2]), torch.tensor([4, 0, 3])
    canvas = student("cnn.shifted:place", images=images, rows=rows, columns=columns, side=8)
    assert canvas.shape == (3, 2, 8, 8)
    for image, row, column, found in zip(images, rows.tolist(), columns.tolist(), canvas, strict=True):
        close(found[:, row : row + 3, column : column + 4], image)
    close(canvas.sum(dim=(1, 2, 3)), images.sum(dim=(1, 2, 3)), 1e-4)
