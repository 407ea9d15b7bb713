"""Lesson 5: LLaVA, and fine-tuning for less.

Every arm starts from lesson 2's vision encoder and lesson 0's language model. Claims are measured on scenes with a
color–shape combination that no model of the chain was trained on. `cpu` trains LLaVA and its blind baseline; `full`
adds the ablations and the second part (LoRA, DoRA, QLoRA, DPO, distillation).
"""

from collections.abc import Mapping

from data.toybox.heldout import SPLIT_CONTENTS
from lessons.lesson_05_llava.experiment import arms, claims, figures
from lessons.lesson_05_llava.finetuning.experiment import arms as finetuning_arms
from lessons.lesson_05_llava.finetuning.experiment import claims as finetuning_claims
from lessons.lesson_05_llava.finetuning.experiment import figures as finetuning_figures
from shared import plots
from shared.course.lesson import Lesson, Run
from shared.course.splits import on_splits


def draw(run: Run) -> Mapping[str, plots.Figure]:
    """Draw the figures of both parts that the run's arms allow."""
    return figures.draw(run) | finetuning_figures.draw(run)


LESSON = Lesson(
    number=5,
    arms=(*arms.ARMS, *finetuning_arms.ARMS),
    claims=(
        *claims.CLAIMS,
        *on_splits(
            finetuning_claims.CLAIMS,
            others={"qlora-bytes": "", "teacher-helps-student": "text"},
        ),
    ),
    headline="answers",
    headline_caption="accuracy on questions about unseen color–shape combinations",
    figures=draw,
    captions=figures.CAPTIONS | finetuning_figures.CAPTIONS,
    data_sets=dict.fromkeys(arms.PRESETS, "toybox"),
    splits=SPLIT_CONTENTS | {"text": "new documents of seen combinations"},
)
