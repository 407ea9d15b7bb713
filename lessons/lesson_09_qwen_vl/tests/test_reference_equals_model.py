"""With the same weights, the pure-Python Qwen-VL and the PyTorch one give the same logits and gradients."""

from random import Random

import pytest
import torch
from torch.nn import functional as F

from lessons.lesson_09_qwen_vl import reference
from lessons.lesson_09_qwen_vl.model import VisualInput, grounding
from lessons.lesson_09_qwen_vl.model.config import VisionConfig
from lessons.lesson_09_qwen_vl.model.merger import Merger, concatenate_patches
from lessons.lesson_09_qwen_vl.model.patches import cut_into_patches
from lessons.lesson_09_qwen_vl.model.positions import TEXT, VIDEO, TokenGrid, mrope_angles, mrope_ids, pair_axes
from lessons.lesson_09_qwen_vl.model.window_attention import grid_windows, window_order
from shared.attention import Mask
from shared.stdlib.functional import cross_entropy
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import MLP, Attention, Block, Rotary

SIZES = {
    "the reference's": reference.Sizes(),
    "odd": reference.Sizes(3, 3, 4, 20, 2, 2, 12, (1, 2, 2), 7, 50.0),
}


class SmallQwenVL(torch.nn.Module):
    """The reference's model, made of the parts of `model/`."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        config = VisionConfig(
            depth=0,
            width=sizes.vision_width,
            heads=1,
            mlp_dim=1,
            output_width=sizes.width,
            patch_size=sizes.patch_size,
            merge_size=sizes.merge_size,
        )
        self.patch_embedding = torch.nn.Linear(sizes.patch_size**2, sizes.vision_width, bias=False)
        self.merger = Merger(config)
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

    def forward(self, videos, token_ids):
        sizes = self.sizes
        cut = [cut_into_patches(video[:, None], sizes.patch_size, 1, sizes.merge_size) for video in videos]
        patches, (frames, rows, columns) = torch.cat([each for each, _ in cut]), cut[0][1]
        visual = self.merger(self.patch_embedding(patches)).reshape(len(videos), -1, sizes.width)
        x = torch.cat([visual, self.embedding(token_ids)], dim=1)
        grid = TokenGrid(frames, rows // sizes.merge_size, columns // sizes.merge_size)
        kinds = [VIDEO] * visual.shape[1] + [TEXT] * token_ids.shape[1]
        ids = mrope_ids(kinds, {VIDEO: iter([grid])})[None]
        frequencies = Rotary(sizes.width // sizes.heads, base=sizes.base).frequencies().double()
        angles = mrope_angles(ids, frequencies, pair_axes(sizes.sections, False))
        for block in self.blocks:
            x = block(x, mask=Mask(causal=True), angles=angles)
        return self.output(self.norm(x[:, -1]))


@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_and_gradients(name):
    sizes = SIZES[name]
    model = redraw_weights(SmallQwenVL(sizes).double())
    plain = reference.QwenVL(sizes, Random(0))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    side = sizes.patch_size * sizes.merge_size
    videos = torch.rand(2, 3, 2 * side, side, dtype=torch.float64)
    token_ids, answers = torch.tensor([[1, 5], [6, 0]]), [3, 4]

    logits, expected = plain(to_stdlib(videos), token_ids.tolist()), model(videos, token_ids)
    # The frequencies of the PyTorch model are rounded to float32.
    assert max_abs_difference(to_torch(logits), expected) < 1e-5
    cross_entropy(logits, answers).backward()
    F.cross_entropy(expected, torch.tensor(answers)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        assert max_abs_difference(parameter.grad, gradients[name]) < 1e-5, name
        # A bias of the keys adds a constant to all scores of a query only without rotary positions.
        assert gradients[name].abs().max() > 1e-6, name


def test_the_patches_are_one():
    frames = torch.rand(2, 12, 18, dtype=torch.float64)
    expected, _ = cut_into_patches(frames[:, None], 3, 1, 2)
    plain = reference.cut_into_patches(to_stdlib(frames), 3, 2)
    assert max_abs_difference(to_torch(plain), expected) == 0
    assert max_abs_difference(to_torch(reference.merge_patches(plain, 2)), concatenate_patches(expected, 4)) == 0


def test_the_ids_are_one():
    parts = [2, reference.Grid(3, 2, 4, 1.5), 1, reference.Grid(1, 5, 2), reference.Grid(2, 1, 1, 9.0), 3]
    kinds, grids = [], []
    for part in parts:
        if isinstance(part, reference.Grid):
            kinds += [VIDEO] * (part.frames * part.rows * part.columns)
            grids.append(TokenGrid(*part))
        else:
            kinds += [TEXT] * part
    assert reference.mrope_ids(parts) == [tuple(each) for each in mrope_ids(kinds, {VIDEO: iter(grids)}).tolist()]
    assert reference.mrope_ids([]) == []


@pytest.mark.parametrize("grid", [(4, 6, 2), (3, 5, 2), (1, 7, 3), (2, 2, 4)])
def test_the_window_orders_are_one(grid):
    rows, columns, side = grid
    assert reference.window_order(rows, columns, side) == window_order(grid_windows(1, rows, columns, side))[0].tolist()


TEXTS = [
    '```json\n[{"bbox_2d": [1, 2, 30, 40], "label": "red"},\n{"bbox_2d": [5, 6, 7.5, 8,], "label": "\\u00e9"},]```',
    'The box is {"bbox_2d": [90, 40, 10, 5]} and {"label": "x", "bbox_2d": [-3, -3, 500, 500]}, {"bbox_2d": [1, 2, 3]}',
    '[{"bbox_2d": [NaN, 1, 2, 3], "label": "a"}, {"bbox_2d": [1, 1, 9, 9], "label": "cut',
    '[{"bbox_2d": [1, 1, 9, 9], "label": "a } b"}, {"label": "\\q", "bbox_2d": [2, 2, 3, 3]}]',
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_parsers_are_one(text):
    boxes = grounding.parse_boxes(text, (100, 200))
    assert reference.parse_boxes(text, 100, 200) == [tuple(box) for box in boxes]
    assert bool(boxes) == bool(text)


def test_stills_of_the_model_are_repeated():
    visual = VisualInput.from_frames([torch.rand(1, 1, 8, 8), torch.rand(3, 1, 4, 8)], 2)
    assert visual.grids.tolist() == [[1, 4, 4], [2, 2, 4]]
    assert torch.equal(visual.patches[:16, :4], visual.patches[:16, 4:])
    assert torch.equal(visual.patches[24:, :4], visual.patches[24:, 4:])
