"""The arms of lesson 5's second part: parameter-efficient tuning of LLaVA's language model, DPO and distillation."""

from lessons.lesson_05_llava.experiment.arms import TRAIN_LLAVA, llava_settings
from shared.course.lesson import Arm

PART = "finetuning"
PACKAGE = "lessons.lesson_05_llava.finetuning.experiment"
TRAIN_DPO, DISTILL = f"{PACKAGE}.preferences:train_preferences", f"{PACKAGE}.distillation:distill"
SMOKE_DPO = {"steps": 1, "preference_steps": 1, "dialogues": 16, "pairs": 8, "held_out": 3}
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
    Arm("dpo", TRAIN_DPO, {"smoke": SMOKE_DPO, "full": {"steps": 240, "preference_steps": 40}}, part=PART),
    student("student, distilled", with_teacher=True),
    student("student, text only", with_teacher=False),
)
