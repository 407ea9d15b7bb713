"""The arms of lesson 5's second part: parameter-efficient tuning of LLaVA's language model, DPO and distillation.

LLaVA is tuned in two settings. In stage 2 it learns a new skill, answering questions about images. In the arm "new
answer style" it has this skill and learns to answer in full sentences.
"""

from lessons.lesson_05_llava.experiment.arms import ONE_OBJECT, SMOKE_SIZES, TRAIN_LLAVA, llava_settings
from shared.course.lesson import Arm

PART = "finetuning"
PACKAGE = "lessons.lesson_05_llava.finetuning.experiment"
TRAIN_DPO, DISTILL = f"{PACKAGE}.preferences:train_preferences", f"{PACKAGE}.distillation:distill"
ADAPT_STYLE = f"{PACKAGE}.answer_style:adapt_answer_style"
SMOKE_DPO = {"steps": 1, "preference_steps": 1, "dialogues": 16, "pairs": 8, "held_out": 3}
STYLE = {"steps": 100, "scenes": 1200, "validation": 120, "ranks": [2, 8], "learning_rates": [6e-3, 2e-2, 6e-2]}
SMOKE_STYLE = {"steps": 1, "scenes": 8, "validation": 6, "ranks": [2], "learning_rates": [2e-3, 6e-3]}
SMOKE_DISTILLATION = {"steps": 1, "documents": 60}


def tuning(name: str, method: str) -> Arm:
    """Declare LLaVA with one method of tuning the language model in stage 2."""
    return Arm(name, TRAIN_LLAVA, llava_settings("smoke", "full", tuning=method), part=PART)


def student(name: str, *, with_teacher: bool) -> Arm:
    """Declare a small decoder that is trained on text, with or without the teacher's probabilities."""
    settings = {"smoke": SMOKE_DISTILLATION, "full": {"steps": 300}}
    return Arm(
        name,
        DISTILL,
        {preset: values | {"with_teacher": with_teacher} for preset, values in settings.items()},
        part=PART,
    )


ARMS = (
    tuning("full fine-tuning", "full"),
    tuning("lora", "lora"),
    tuning("dora", "dora"),
    tuning("qlora", "qlora"),
    Arm(
        "new answer style",
        ADAPT_STYLE,
        {
            "smoke": SMOKE_SIZES | {"first_steps": 1, "second_steps": 1, "objects": [1, 1], "style": SMOKE_STYLE},
            "full": ONE_OBJECT | {"style": STYLE},
        },
        part=PART,
    ),
    Arm("dpo", TRAIN_DPO, {"smoke": SMOKE_DPO, "full": {"steps": 240, "preference_steps": 40}}, part=PART),
    student("student, distilled", with_teacher=True),
    student("student, text only", with_teacher=False),
)
