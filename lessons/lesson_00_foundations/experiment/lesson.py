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
from shared.course.splits import on_splits

ARMS = (*autograd_arms.ARMS, *cnn_arms.ARMS, *recurrent_arms.ARMS, *vae_arms.ARMS, *decoder_arms.ARMS)
CLAIMS = (
    *on_splits(
        autograd_claims.CLAIMS,
        chosen_on="training",
        measured_on="training",
        others={"mlp-classifies-digits": "held-out", "gradient-cost-is-constant": ""},
    ),
    *on_splits(
        cnn_claims.CLAIMS,
        chosen_on="",
        measured_on="held-out",
        others={
            "cnn-depth-hurts-plain": "training",
            "cnn-shortcuts-help": "training",
            "cnn-deep-residual-against-shallow": "training",
            "cnn-cifar10": "CIFAR-10 test",
        },
    ),
    *on_splits(
        recurrent_claims.CLAIMS,
        chosen_on="",
        measured_on="new sequences",
        others={"recurrent-gradient-vanishes": "", "recurrent-chrono-keeps-gradient": ""},
    ),
    *on_splits(
        vae_claims.CLAIMS,
        chosen_on="",
        measured_on="held-out",
        others={"vae-kl-raises-training-error": "training"},
    ),
    *on_splits(
        decoder_claims.CLAIMS,
        others={"decoder-int8-memory": "", "decoder-cache-is-faster": "", "decoder-int8-speed": ""},
    ),
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
    headline_caption="accuracy of a small language model on new naming rules, after four examples in the prompt",
    figures=draw_figures,
    captions=CAPTIONS,
    data_sets={"smoke": "digits", "cpu": "digits", "full": "digits", "gpu": "cifar10"},
    other_data_sets=("text_small", "folder:PATH"),
    splits={
        "training": "1,438 digits",
        "held-out": "a random fifth of the digits",
        "CIFAR-10 test": "10,000 images",
        "new sequences": "another seed, another start of the series, or unseen negations",
        "validation": "new documents; episodes with seen or held-out rules",
        "test": "new documents and episodes, from other seeds",
    },
)
