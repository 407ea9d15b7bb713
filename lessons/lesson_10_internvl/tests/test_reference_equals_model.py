"""The reference and `model/` agree: logits and gradients with the same weights, positions, weights, the mixer."""

from itertools import islice
from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_10_internvl import reference
from lessons.lesson_10_internvl.model import Corpus, CorpusMixer, averaged_loss, token_steps, v2pe_positions
from lessons.lesson_10_internvl.model.loss_averaging import response_lengths, token_weights
from lessons.lesson_10_internvl.model.projector import UnshuffleProjector, pixel_unshuffle
from shared.attention import Mask
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import MLP, Attention, Block
from shared.transformer.rotary import Rotary

SIZES = {
    "the reference's": reference.Sizes(),
    "odd": reference.Sizes(12, 2, 3, 5, 20, 2, 2, 12, 9, 50.0),
}


class SmallInternVL(torch.nn.Module):
    """The reference's model, made of the parts of `model/`."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.patch_embedding = torch.nn.Linear(sizes.patch**2, sizes.vision_width)
        self.projector = UnshuffleProjector(sizes.vision_width, sizes.width, factor=sizes.factor)
        self.embedding = torch.nn.Embedding(sizes.vocab, sizes.width)
        self.blocks = torch.nn.ModuleList(
            Block(
                Attention(sizes.width, sizes.heads, bias=(True, False)),
                MLP(sizes.width, sizes.mlp_dim),
                lambda: torch.nn.LayerNorm(sizes.width, 1e-6),
            )
            for _ in range(sizes.depth)
        )
        self.norm = torch.nn.LayerNorm(sizes.width, 1e-6)
        self.output = torch.nn.Linear(sizes.width, sizes.vocab, bias=False)

    def forward(self, images, text, step):
        batch, count = images.shape[:2]
        sizes, rows = self.sizes, self.sizes.side // self.sizes.patch
        patches = images.reshape(-1, rows, sizes.patch, rows, sizes.patch).transpose(2, 3).flatten(3)
        visual = self.projector(self.patch_embedding(patches)).reshape(batch, -1, sizes.width)
        x = torch.cat([visual, self.embedding(text)], dim=1)
        is_visual = torch.arange(x.shape[1])[None] < count * sizes.image_tokens
        positions = v2pe_positions(token_steps(is_visual, torch.tensor([step] if count else []).double()))
        frequencies = Rotary(sizes.width // sizes.heads, base=sizes.base).frequencies().double()
        for block in self.blocks:
            x = block(x, mask=Mask(causal=True), angles=positions[..., None] * frequencies)
        return self.output(self.norm(x[:, -text.shape[1] :]))


@pytest.mark.parametrize("count", [2, 0], ids=["images", "text"])
@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_and_gradients(name, count):
    sizes = SIZES[name]
    model = redraw_weights(SmallInternVL(sizes).double())
    plain = reference.InternVL(sizes, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    images = torch.rand(2, count, sizes.side**2, dtype=torch.float64)
    text, targets = torch.tensor([[1, 5, 2], [6, 0, 3]]), torch.tensor([[5, 2, 7], [0, 3, 8]])
    mask = torch.tensor([[True, True, True], [False, False, True]])

    logits, expected = plain(images.tolist(), text.tolist(), 0.25), model(images, text, 0.25)
    # The frequencies of the PyTorch model are rounded to float32.
    assert max_abs_difference(to_torch(logits), expected) < 1e-5
    reference.averaged_loss(logits, targets.tolist(), mask.tolist()).backward()
    losses = F.cross_entropy(expected.transpose(1, 2), targets, reduction="none")
    averaged_loss(losses, mask, torch.zeros_like(text)).mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        if count or not name.startswith(("patch_embedding", "projector")):
            assert max_abs_difference(parameter.grad, gradients[name]) < 1e-5, name
            assert gradients[name].abs().max() > 1e-6, name


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_unshuffling_is_one(factor):
    grid = torch.randn(2, 6, 12, 3).double()
    assert (
        max_abs_difference(to_torch(reference.pixel_unshuffle(to_stdlib(grid), factor)), pixel_unshuffle(grid, factor))
        == 0
    )


def test_the_positions_are_one():
    is_visual = torch.rand(3, 40) < 0.5
    steps = [torch.tensor([2.0 ** -int(k) for k in torch.randint(9, (40,))])[: _images(row)] for row in is_visual]
    positions = v2pe_positions(token_steps(is_visual, torch.cat(steps)))
    for row, row_steps, expected in zip(is_visual.tolist(), steps, positions.tolist(), strict=True):
        assert reference.v2pe_positions(row, row_steps.tolist()) == expected


def _images(row):
    return int((row & ~torch.cat([torch.tensor([False]), row[:-1]])).sum())


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_weights_are_one(exponent):
    mask = torch.rand(4, 9) < 0.5
    mask[2] = False
    weights = token_weights(response_lengths(mask, torch.zeros(4, 9, dtype=torch.long)), exponent) * mask
    expected = torch.tensor(reference.token_weights(mask.tolist(), exponent))
    torch.testing.assert_close(weights, expected)


def test_the_mixtures_are_one():
    lengths, fractions = [[5, 9, 30], [200, 100], [7]], [1.0, 3.0, 0.5]
    mixer = CorpusMixer({str(i): Corpus(each, fractions[i]) for i, each in enumerate(lengths)}, seed=7)
    expected = [(int(draw.corpus), draw.document) for draw in islice(mixer, 200)]
    assert list(islice(reference.mix(lengths, fractions, 7), 200)) == expected
