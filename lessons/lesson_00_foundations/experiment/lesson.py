"""Lesson 0's experiment: the arms and claims of its five parts, which each part tells for itself."""

from lessons.lesson_00_foundations.autograd.experiment import claims as autograd
from lessons.lesson_00_foundations.cnn.experiment import claims as cnn
from lessons.lesson_00_foundations.decoder.experiment import claims as decoder
from lessons.lesson_00_foundations.experiment.figures import SHOWN_FIRST, draw
from lessons.lesson_00_foundations.recurrent.experiment import claims as recurrent
from lessons.lesson_00_foundations.vae.experiment import claims as vae
from shared.course.lesson import Lesson, Run

PARTS = (autograd, cnn, recurrent, vae, decoder)


def figures(run: Run) -> dict:
    """The figures of the parts whose arms have run: of one that was asked for, or of all that the preset trains."""
    trained = run.arms[run.seeds[0]]
    return draw(run, dict.fromkeys(arm.part for arm in LESSON.arms if arm.name in trained))


LESSON = Lesson(
    number=0,
    arms=tuple(arm for part in PARTS for arm in part.ARMS),
    claims=tuple(claim for part in PARTS for claim in part.CLAIMS),
    headline="decoder-follows-new-rules",
    headline_caption="a language model trained in a minute follows rules it never met, shown four examples",
    figures=figures,
    captions=SHOWN_FIRST,
    data_sets={"smoke": "digits", "cpu": "digits", "full": "digits", "gpu": "cifar10"},
    other_data_sets=("text_small", "folder:PATH"),
)
