"""Lesson 5's experiment: what `make lesson-5` trains, and the claims that it measures (claims.py).

Each arm is trained in a process of its own, from lesson 2's eye and lesson 0's language model; each claim reads what the arms have
measured on scenes whose combination of colour and shape nobody in the chain was trained on. `cpu` trains LLaVA and its blind
baseline; `full` takes away a part at a time, tunes for less, and trains on preferences and by distillation.
"""

from lessons.lesson_05_llava.experiment.claims import CLAIMS, LONGEST, SHORTEST
from lessons.lesson_05_llava.experiment.figures import CAPTIONS, draw
from lessons.lesson_05_llava.experiment.training import TUNINGS
from shared.course.lesson import Arm, Lesson

ROOM = "lessons.lesson_05_llava"
TRAIN, LENGTHS = f"{ROOM}.experiment.training:train_llava", f"{ROOM}.experiment.training:train_lengths"
DPO, DISTILLATION = f"{ROOM}.experiment.preferences:train_preferences", f"{ROOM}.experiment.distillation:distil"
PRESETS = ("smoke", "cpu", "full")
TINY = {"scenes": 24, "batch_size": 4, "held_out": 24}
# Scenes of one thing, and the six kinds of questions that one is enough for.
ONE_OBJECT = {"first_steps": 300, "second_steps": 1250, "scenes": 8000, "objects": [1, 1]}
SIZES = {"smoke": TINY | {"first_steps": 2, "second_steps": 2}, "cpu": ONE_OBJECT, "full": ONE_OBJECT}
SEVERAL = {"first_steps": 500, "second_steps": 2000, "scenes": 20_000, "objects": [1, 3]}
SWEEP = {
    "smoke": TINY | {"first_steps": 2, "lengths": [1, 2]},
    "full": {"first_steps": 300, "lengths": [SHORTEST, 100, 200, 400, LONGEST], "scenes": 8000, "objects": [1, 1]},
}
LITTLE = {
    DPO: {"steps": 1, "preference_steps": 1, "dialogues": 16, "pairs": 8, "held_out": 3},
    DISTILLATION: {"steps": 1, "documents": 60},
}


def settings(*presets: str, **further: object) -> dict[str, dict]:
    """For some presets their sizes, and what sets an arm apart."""
    return {preset: SIZES[preset] | further for preset in presets}


def system(name: str, function: str, *, steps: int, **further: object) -> Arm:
    """Declare an arm that trains a language model alone; each is small enough to be tried in a second."""
    apart = {key: value for key, value in further.items() if key not in LITTLE[function]}
    return Arm(name, function, {"smoke": LITTLE[function] | apart, "full": {"steps": steps} | further})


ARMS = (
    Arm("llava", TRAIN, settings(*PRESETS)),
    Arm("blind", TRAIN, settings(*PRESETS, image=False, first_steps=0)),
    Arm("exact", f"{ROOM}.experiment.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    Arm("stage 2 alone", TRAIN, settings("smoke", "full", first_steps=0)),
    Arm("prompts too", TRAIN, settings("smoke", "full", prompts=True)),
    Arm("sizes as they come", TRAIN, settings("smoke", "full", scales=[1.0, 1.0])),
    *(Arm(tuning, TRAIN, settings("smoke", "full", tuning=tuning)) for tuning in TUNINGS if tuning != "full"),
    Arm("several things", TRAIN, {"full": SEVERAL}),
    Arm("lengths", LENGTHS, SWEEP),
    Arm("lengths, stage 2 alone", LENGTHS, {preset: chosen | {"first_steps": 0} for preset, chosen in SWEEP.items()}),
    system("dpo", DPO, steps=240, preference_steps=40),
    system("student, taught", DISTILLATION, steps=300, taught=True),
    system("student, alone", DISTILLATION, steps=300, taught=False),
)  # fmt: skip

LESSON = Lesson(
    number=5,
    arms=ARMS,
    claims=CLAIMS,
    headline="answers",
    headline_caption="questions about held-out combinations answered",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
)
