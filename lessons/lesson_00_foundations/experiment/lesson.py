"""Lesson 0's experiment: the arms and claims of its five parts. Each part declares its own."""

from lessons.lesson_00_foundations.autograd.experiment import arms as autograd_arms
from lessons.lesson_00_foundations.autograd.experiment import claims as autograd_claims
from lessons.lesson_00_foundations.cnn.experiment import arms as cnn_arms
from lessons.lesson_00_foundations.cnn.experiment import claims as cnn_claims
from lessons.lesson_00_foundations.decoder.experiment import arms as decoder_arms
from lessons.lesson_00_foundations.decoder.experiment import claims as decoder_claims
from lessons.lesson_00_foundations.experiment.figures import CAPTIONS, draw_parts
from lessons.lesson_00_foundations.recurrent.experiment import arms as recurrent_arms
from lessons.lesson_00_foundations.recurrent.experiment import claims as recurrent_claims
from lessons.lesson_00_foundations.vae.experiment import arms as vae_arms
from lessons.lesson_00_foundations.vae.experiment import claims as vae_claims
from shared import plots
from shared.course.lesson import Lesson, Run

ARMS = (*autograd_arms.ARMS, *cnn_arms.ARMS, *recurrent_arms.ARMS, *vae_arms.ARMS, *decoder_arms.ARMS)
CLAIMS = (
    *autograd_claims.CLAIMS,
    *cnn_claims.CLAIMS,
    *recurrent_claims.CLAIMS,
    *vae_claims.CLAIMS,
    *decoder_claims.CLAIMS,
)


def draw_figures(run: Run) -> dict[str, plots.Figure]:
    """Draw the figures of every part that has finished arms in this run."""
    finished = run.arms[run.seeds[0]]
    return draw_parts(run, dict.fromkeys(arm.part for arm in ARMS if arm.part and arm.name in finished))


LESSON = Lesson(
    number=0,
    arms=ARMS,
    claims=CLAIMS,
    headline="decoder-follows-unseen-rules",
    headline_caption="accuracy of a small language model on unseen rules, with four examples in the prompt",
    figures=draw_figures,
    captions=CAPTIONS,
    data_sets={"smoke": "digits", "cpu": "digits", "full": "digits", "gpu": "cifar10"},
    other_data_sets=("text_small", "folder:PATH"),
)
