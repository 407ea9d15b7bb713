"""The two losses: by definition, for extreme scores, over several processes, and in chunks."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lessons.lesson_02_clip.model import encode_in_chunks, gathered_info_nce, info_nce, ring_sigmoid_loss, sigmoid_loss
from shared.distributed.launch import launch

PROGRAM = Path(__file__).with_name("loss_program.py")
specification = importlib.util.spec_from_file_location("loss_program", PROGRAM)
loss_program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(loss_program)


def vectors(rows=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    return F.normalize(both, dim=-1).unbind()


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def test_info_nce_is_its_definition():
    images, texts = vectors()
    scores = 7.0 * images @ texts.T
    expected = 0.0
    for i in range(6):
        expected -= math.log(scores[i, i].exp() / scores[i].exp().sum()) / 12
        expected -= math.log(scores[i, i].exp() / scores[:, i].exp().sum()) / 12
    assert info_nce(images, texts, scalar(7.0)).item() == pytest.approx(expected)


def test_sigmoid_loss_is_its_definition():
    images, texts = vectors()
    expected = 0.0
    for i in range(6):
        for j in range(6):
            score = 7.0 * (images[i] @ texts[j]).item() - 3.0
            expected += math.log(1 + math.exp(-score if i == j else score)) / 6
    assert sigmoid_loss(images, texts, scalar(7.0), scalar(-3.0)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss", [lambda i, t, s: info_nce(i, t, s), lambda i, t, s: sigmoid_loss(i, t, s, scalar(0.0))]
)
def test_extreme_scores_stay_finite(loss):
    """e¹⁰⁰⁰ overflows; the losses must not compute it, in the forward or in the backward pass."""
    images, texts = vectors()
    texts = texts.clone().requires_grad_()
    value = loss(images, texts, scalar(5000.0))
    value.backward()
    assert value.isfinite() and texts.grad.isfinite().all() and texts.grad.abs().max() > 0


def test_loss_of_equal_vectors():
    """With equal vectors, InfoNCE is the logarithm of the batch size at any temperature."""
    same = F.normalize(torch.ones(8, 3, dtype=torch.float64), dim=-1)
    assert info_nce(same, same, scalar(20.0)).item() == pytest.approx(math.log(8))
    # Scale 10 and bias −10 give logits of 0: the loss of each of the 8 pairs per image is log 2.
    assert sigmoid_loss(same, same, scalar(10.0), scalar(-10.0)).item() == pytest.approx(8 * math.log(2))


def test_a_duplicate_caption_is_a_false_negative():
    """Two images with one caption: even with the best vectors, each has a loss of log 2 in both directions."""
    corners = torch.eye(4, dtype=torch.float64)
    duplicate = corners[[0, 0, 1, 2]]
    assert info_nce(corners, corners, scalar(100.0)).item() < 1e-9
    assert info_nce(duplicate, duplicate, scalar(100.0)).item() == pytest.approx(2 * math.log(2) / 4)


# ── Several processes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=[2, 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    done = launch(request.param, PROGRAM, str(folder))
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"{process}.safetensors") for process in range(request.param)]


@pytest.mark.parametrize("name", loss_program.LOSSES)
def test_the_loss_over_processes_equals_the_loss_in_one(results, name):
    """Loss and gradients of the parameters are means over processes; gradients of vectors are summed per row."""
    parts = [loss_program.own_vectors(process) for process in range(len(results))]
    images, texts = (torch.cat(side) for side in zip(*parts, strict=True))
    parameters = loss_program.parameters()
    loss_function = {"info_nce": info_nce, "sigmoid": sigmoid_loss}[name]
    arguments = parameters[:1] if name == "info_nce" else parameters
    for tensor in (images, texts):
        tensor.requires_grad_()
    value = loss_function(images, texts, *arguments)
    value.backward()

    def mean(key):
        return torch.stack([result[f"{name}/{key}"] for result in results]).mean(0)

    torch.testing.assert_close(mean("loss"), value.detach(), rtol=0, atol=1e-12)
    for index, parameter in enumerate(arguments):
        torch.testing.assert_close(mean(f"parameter {index}"), parameter.grad, rtol=0, atol=1e-12)
    rows, processes = len(parts[0][0]), len(results)
    for process, result in enumerate(results):
        own_rows = slice(process * rows, (process + 1) * rows)
        for key, tensor in (("images", images), ("texts", texts)):
            # Each process has the gradient of the sum of all parts; the loss of the whole batch is their mean.
            torch.testing.assert_close(result[f"{name}/{key}"] / processes, tensor.grad[own_rows], rtol=0, atol=1e-12)
            assert tensor.grad[own_rows].abs().max() > 1e-3


def test_in_a_single_process_they_equal_the_plain_losses():
    images, texts = vectors()
    assert gathered_info_nce(images, texts, scalar(9.0)) == info_nce(images, texts, scalar(9.0))
    alone = ring_sigmoid_loss(images, texts, scalar(9.0), scalar(-4.0))
    assert alone == sigmoid_loss(images, texts, scalar(9.0), scalar(-4.0))


# ── Batches larger than memory ────────────────────────────────────────────────────────────────────────────────────


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(7, 64), torch.nn.GELU(), torch.nn.Dropout(0.2), torch.nn.Linear(64, 5)
        )

    def forward(self, x):
        return F.normalize(self.layers(x), dim=-1)


@pytest.mark.parametrize("chunk", [1, 4, 5, 12, 50])
def test_chunks_change_neither_loss_nor_gradients(chunk):
    """Without dropout, which is drawn per chunk; the next test checks that both passes draw the same values."""
    images, texts = torch.randn(12, 7), torch.randn(12, 7)
    model, plain = Encoder().eval(), Encoder().eval()
    plain.load_state_dict(model.state_dict())
    loss = info_nce(*(encode_in_chunks(model, side, chunk) for side in (images, texts)), torch.tensor(10.0))
    expected = info_nce(plain(images), plain(texts), torch.tensor(10.0))
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
        assert other.grad.abs().max() > 1e-4


def test_both_passes_draw_the_same_random_numbers():
    model, inputs = Encoder().train(), torch.randn(6, 7)
    vectors_of = encode_in_chunks(model, inputs, 6)
    vectors_of[:, 0].sum().backward()
    gradient = model.layers[0].weight.grad.clone()
    torch.manual_seed(0)  # the seed at the start of every test
    model.zero_grad()
    again = Encoder().train()  # draws the same random numbers as before
    torch.randn(6, 7)
    again.load_state_dict(model.state_dict())
    again(inputs)[:, 0].sum().backward()
    torch.testing.assert_close(gradient, again.layers[0].weight.grad)


def stored_bytes(compute):
    """Return the size of the tensors stored for the backward pass."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(sizes)


def test_chunks_do_not_store_inner_activations():
    model, inputs = Encoder().eval(), torch.randn(256, 7)
    plain, chunked = stored_bytes(lambda: model(inputs)), stored_bytes(lambda: encode_in_chunks(model, inputs, 16))
    assert plain > 256 * 64 * 4  # the hidden layer, which chunks do not store
    assert chunked < 256 * 7 * 4 * 2


def test_a_chunk_of_no_rows_is_refused():
    with pytest.raises(ValueError, match="chunk is 0"):
        encode_in_chunks(Encoder(), torch.randn(3, 7), 0)
