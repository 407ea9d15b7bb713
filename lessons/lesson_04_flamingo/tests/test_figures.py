"""Every figure is drawn from the arms' measurements, for one seed and several, with all arms and with the fewest."""

from pathlib import Path

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_04_flamingo.experiment import figures
from lessons.lesson_04_flamingo.experiment.evaluate import SHOTS
from lessons.lesson_04_flamingo.experiment.train import build_flamingo
from shared.course.lesson import Run


def measurements(offset):
    names = ("held_out", "seen", "blind", "mixed", "text", "best_guess")
    accuracies = {f"{name}_{count}": 0.1 * count**0.5 + offset for name in names for count in SHOTS}
    accuracies |= {f"{name}_{kind}": 0.9 + offset for name in ("single", "probe") for kind in figures.ATTRIBUTES}
    curves = {
        f"{name}_{layer}_curve": ([10, 20], [0.0, 0.1 + offset]) for name in ("attention", "mlp") for layer in range(2)
    }
    return accuracies | curves | {"text_bits_before": 2.0, "text_bits_after": 2.1 + offset, "latents": 3, "depth": 1}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
@pytest.mark.parametrize("arms", [["flamingo"], list(figures.ARM_LABELS.values())], ids=["fewest", "all"])
def test_every_figure_is_drawn_and_has_a_caption(seeds, arms, monkeypatch):
    def untrained(_run):
        torch.manual_seed(0)
        language_model, tokenizer = load_language_model()
        return build_flamingo(load_vision_encoder(), language_model, latents=3, depth=1).eval(), tokenizer

    monkeypatch.setattr(figures, "load_trained", untrained)
    measured = {seed: {arm: measurements(seed / 100) for arm in arms} for seed in seeds}
    drawn = figures.draw(Run("cpu", "cpu", "toybox", seeds, Path("nowhere"), measured))
    assert drawn.keys() == figures.CAPTIONS.keys()
