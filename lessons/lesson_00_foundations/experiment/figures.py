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
CAPTIONS = {"decoder_examples": decoder.CAPTIONS["decoder_examples"]}
"""The figure of the lesson's own page; the parts' pages show all of theirs."""


def draw_parts(run: Run, parts: Iterable[str]) -> dict[str, plots.Figure]:
    """Draw every figure of these parts."""
    return {name: figure for part in parts for name, figure in PARTS[part].draw(run).items()}
