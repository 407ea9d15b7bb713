"""The pure-Python reference and the PyTorch model agree: pooling, tiles, budgets, logits and gradients."""

from random import Random

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava.model import Projector
from lessons.lesson_08_onevision import reference
from lessons.lesson_08_onevision.model import (
    EncodedImage,
    EncodedVideo,
    ImageInput,
    LlavaOneVision,
    PlaceholderIds,
    VideoInput,
    VisualLayout,
    build_sequence,
    pool_grid,
    solve_image,
    solve_images,
    solve_video,
)
from lessons.lesson_08_onevision.model.tiling import grid_pinpoints, join_frames, join_tiles
from shared.stdlib.decoder import Decoder
from shared.stdlib.functional import cross_entropy
from shared.testing import redraw_weights
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

# features, width, layers, heads, mlp_dim; side of a tile in patches, tiles to whose patches an image is pooled
SIZES = {"the reference's": ((8, 16, 2, 2, 32), (2, 1)), "odd": ((7, 18, 3, 3, 10), (3, 2))}
SQUARE = (40, 40)


@pytest.mark.parametrize(
    ("rows", "columns", "size"), [(4, 4, (2, 2)), (27, 27, (14, 14)), (5, 9, (3, 4)), (3, 7, (1, 7)), (2, 3, (5, 4))]
)
def test_pooling(rows, columns, size):
    grid = torch.randn(rows, columns, 3, dtype=torch.float64)
    assert max_abs_difference(to_torch(reference.pool_grid(to_stdlib(grid), size)), pool_grid(grid, size)) < 1e-12


@pytest.mark.parametrize("image", [(40, 40), (30, 100), (100, 30), (7, 90)])
def test_joined_tiles_and_frames(image):
    layout = VisualLayout(16, 3, grid_pinpoints(16, 4), 2)
    rows, columns = layout.tiles(image)
    tiles = torch.randn(rows * columns + 1, 9, 5, dtype=torch.float64)
    newline = torch.randn(5, dtype=torch.float64)
    arguments = (image, (rows, columns))
    expected = join_tiles(tiles, *arguments, newline, layout.max_patches)
    plain = reference.join_tiles(to_stdlib(tiles), *arguments, to_stdlib(newline), layout.max_patches)
    assert max_abs_difference(to_torch(plain), expected) < 1e-12
    assert len(expected) == layout.image_tokens(image)
    frames = reference.join_frames(to_stdlib(tiles), to_stdlib(newline), 2)
    assert max_abs_difference(to_torch(frames), join_frames(tiles, newline, 2)) < 1e-12


@pytest.mark.parametrize(("tile", "side", "most"), [(384, 27, 6), (14, 3, 5), (16, 4, 3)])
def test_budgets(tile, side, most):
    layout, random = VisualLayout(tile, side, grid_pinpoints(tile, most)), Random(0)
    plain = reference.Layout(tile, side, layout.pinpoints, 9)
    for _ in range(25):
        image = int(10 ** random.uniform(0, 3.7)), int(10 ** random.uniform(0, 3.7))
        count, budget = int(10 ** random.uniform(0, 4)), int(10 ** random.uniform(0, 4.5))
        for function, other, request in (
            (solve_image, reference.solve_image, image),
            (solve_images, reference.solve_images, count),
            (solve_video, reference.solve_video, count),
        ):
            try:
                plan = function(request, budget, layout)
            except ValueError:
                with pytest.raises(ValueError, match="budget"):
                    other(request, budget, plain)
            else:
                assert other(request, budget, plain) == (plan.side if function is solve_images else plan[:2])


def both(name):
    """The same random weights in both, read out of the PyTorch model by the reference's own names."""
    (features, width, layers, heads, mlp_dim), (side, max_tiles) = SIZES[name]
    words = len(reference.WORDS)
    config = DecoderConfig(words, width, layers, heads, heads, mlp_dim, rotary_base=10_000.0)
    model = LlavaOneVision(
        torch.nn.Identity(),
        Projector(features, width),
        LanguageModel(config),
        layout=VisualLayout(16, side, ((32, 32),), max_tiles),
        placeholders=PlaceholderIds(words, words + 1),
    ).double()
    redraw_weights(model)
    random = Random(0)
    language = Decoder(words, width, layers, heads, mlp_dim, random)
    plain = reference.OneVision(reference.Projector(features, width, random), language, random)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model, reference.Layout(16, side, [(32, 32)], max_tiles)


@pytest.mark.parametrize("kind", reference.KINDS)
@pytest.mark.parametrize("name", SIZES)
def test_same_weights_same_logits_loss_and_gradients(name, kind):
    plain, model, layout = both(name)
    count = {"image": 5, "images": 2, "video": 4}[kind]
    features = torch.randn(3, count, layout.side**2, SIZES[name][0][0], dtype=torch.float64)
    questions, answers = [0, 1, 1], [4, 2, 5]
    rows, visuals = [], []
    for one, question in zip(features, questions, strict=True):
        if kind == "video":
            visuals.append(EncodedVideo(one))
            parts = [VideoInput(count)]
        else:
            tiles = [one] if kind == "image" else one.split(1)
            visuals += [EncodedImage(each, SQUARE) for each in tiles]
            parts = [ImageInput(SQUARE)] * len(tiles)
        rows.append(build_sequence([*parts, [question]], model.layout, model.placeholders).token_ids)
    logits = model.logits(torch.stack(rows), visuals)[:, -1]
    plain_logits = plain(kind, [to_stdlib(one) for one in features], questions, layout)
    # (The PyTorch decoder turns queries and keys by angles in float32.)
    assert max_abs_difference(to_torch(plain_logits), logits) < 1e-5

    loss = cross_entropy(plain_logits, answers)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(answers))
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-5
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == plain.parameters().keys()
    for name, parameter in plain.parameters().items():
        gradient = torch.tensor(parameter.grad, dtype=torch.float64).reshape(parameter.shape)
        torch.testing.assert_close(gradient, gradients[name], atol=1e-5, rtol=0)
        assert gradient.abs().max() > 1e-4, name
