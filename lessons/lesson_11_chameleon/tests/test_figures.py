"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and the fewest."""

from pathlib import Path

import pytest
import torch

from data.toybox.heldout import HELD_OUT
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon.experiment import figures
from lessons.lesson_11_chameleon.experiment.arms import ARMS, TASKS, TOKENIZERS
from lessons.lesson_11_chameleon.experiment.stability import DESIGNS
from lessons.lesson_11_chameleon.model import BlockDesign
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer, TokenizerConfig
from lessons.lesson_11_chameleon.model.toy_chameleon import ToyChameleon
from shared.course.lesson import Run

RATES = (3e-3, 3e-2)


@pytest.fixture(scope="module")
def model():
    image_tokenizer = ImageTokenizer(TokenizerConfig(codebook_size=128, width=16))
    sizes = {"width": 16, "depth": 1, "mlp_dim": 32}
    return ToyChameleon.build(load_language_model()[1], image_tokenizer, BlockDesign(), **sizes)


def measurements(offset):
    numbers = {
        f"{name}_{attribute}": 0.5 + offset for name in figures.VARIANTS.values() for attribute in figures.ATTRIBUTES
    }
    numbers |= {f"answers_{name}": 0.6 - offset for name in figures.SETTING.question_types} | {"answers": 0.6}
    numbers |= {f"{name}_{rate:g}_logit": 5.0 + offset for name in DESIGNS for rate in RATES}
    numbers |= {f"{task}_loss": 1.0 - offset for task in ("draw", "caption", "answer")}
    numbers |= dict.fromkeys(("psnr", "use", "shape", "color"), 0.7 + offset)
    return numbers | {"rates": list(RATES), "designs": list(DESIGNS)}


def run_of(seeds, arms):
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    return Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured)


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_every_figure_is_drawn_and_has_a_caption(seeds, model, monkeypatch):
    monkeypatch.setattr(figures, "load_chameleon", lambda: model)
    every = [arm.name for arm in ARMS]
    assert figures.draw(run_of(seeds, every)).keys() == figures.CAPTIONS.keys()
    fewest = [arm.name for arm in ARMS if "cpu" in arm.presets]
    assert not set(fewest) & {*TASKS, *TOKENIZERS}
    expected = {"drawings", "pairs", "attributes", "answers", "atlas", "logits"}
    assert figures.draw(run_of(seeds, fewest)).keys() == expected
    assert figures.draw(run_of(seeds, ["exact"])) == {}


def test_the_sheet_alternates_seen_and_unseen_combinations_and_marks_these():
    scenes = figures.sheet_scenes()
    assert len(scenes) == figures.COLUMNS * figures.ROWS
    for place, scene in enumerate(scenes):
        first = scene.objects[0]
        is_unseen = (first.color, first.shape) in HELD_OUT
        assert is_unseen == (place % 2 == 1) == figures.title_of(scene).endswith(f"★\n{first.place}")
    assert len({scene.objects[0].shape for scene in scenes}) == 8


def test_an_image_of_the_atlas_has_its_code_in_the_middle(model):
    tokenizer = model.image_tokenizer
    codes = torch.randperm(tokenizer.codebook_size)[:3]
    images = figures.code_images(tokenizer, codes, 5)
    grid = torch.full((1, 8, 8), 5)
    grid[0, 4, 4] = codes[1]
    assert images.shape == (3, 3, 8, 8)
    assert torch.allclose(images[1], tokenizer.decode(grid)[0, :, 14:22, 14:22], atol=1e-6)


def test_the_atlas_has_every_code_once_with_objects_first():
    tiles = torch.full((6, 3, 12, 12), 0.9) + 0.001 * torch.rand(6, 1, 1, 1)
    for code, channel in ((4, 0), (1, 2)):  # a red and a blue patch
        tiles[code, :, 4:8, 4:8] = 0.0
        tiles[code, channel, 4:8, 4:8] = 0.5 + 0.5 * torch.rand(())
    frequencies = torch.tensor([0.1, 0.1, 0.4, 0.2, 0.05, 0.15])
    order = figures.atlas_order(tiles, frequencies)
    assert order == [4, 1, 2, 3, 5, 0]
    image = figures.mosaic(tiles)
    assert image.shape == (3, 13, 13 * figures.ATLAS_COLUMNS)
    assert torch.equal(image[:, :12, 13:25], tiles[1]) and (image[:, 12] == 1).all()
