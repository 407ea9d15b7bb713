"""The lesson's figures: those of each part that a run has trained."""

from collections.abc import Iterable

from lessons.lesson_00_foundations.autograd.experiment import figures as autograd
from lessons.lesson_00_foundations.cnn.experiment import figures as cnn
from lessons.lesson_00_foundations.decoder.experiment import figures as decoder
from lessons.lesson_00_foundations.recurrent.experiment import figures as recurrent
from lessons.lesson_00_foundations.vae.experiment import figures as vae
from shared import plots
from shared.course.lesson import Run

PARTS = {"autograd": autograd, "cnn": cnn, "recurrent": recurrent, "vae": vae, "decoder": decoder}
SHOWN_FIRST = {
    "autograd_optimizers": autograd.CAPTIONS["autograd_optimizers"],
    "cnn_places": cnn.CAPTIONS["cnn_places"],
    "recurrent_recall": recurrent.CAPTIONS["recurrent_recall"],
    "vae_map": vae.CAPTIONS["vae_map"],
    "decoder_examples": decoder.CAPTIONS["decoder_examples"],
}
"""A figure of each part, for the lesson's own page; the others stand on the parts' pages."""


def draw(run: Run, parts: Iterable[str]) -> dict[str, plots.Figure]:
    """Every figure of these parts."""
    return {name: card for part in parts for name, card in PARTS[part].draw(run).items()}
