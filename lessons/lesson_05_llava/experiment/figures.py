"""The lesson's figures, drawn from what a run has measured."""

from statistics import fmean

from data.toybox.heldout import TEST_SEED
from data.toybox.image import render_images
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_05_llava.experiment.conversations import World, asked_at, world_of
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "kinds": "Right answers about held-out combinations, by kind of question, beside one that cannot see.",
    "wrong": "Wrong answers about held-out scenes, as given; the right one in brackets.",
    "stages": "Right answers by steps of the second stage, with a first stage before it and without.",
    "tuning": "Right answers by kind of question, and by what of the language model learns in the second stage, after equal steps (mean "
    "over seeds).",
    "bytes": "Megabytes of the language model's weights, their gradients and the optimizer's moments, by what learns.",
    "loss": "The second stage's loss: the surprise at the answers.",
    "teacher": "The teacher on held-out scenes, before and after it has learned what is preferred.",
    "student": "A small decoder's surprise at new text: told the words alone, and told all that a large one would have said.",
}
TUNED = {"all of it": "llava", "LoRA": "lora", "DoRA": "dora", "LoRA on 4-bit weights (QLoRA)": "qlora"}
LEARNING = {"both stages": "llava", "stage 2 alone": "stage 2 alone", "blind": "blind"}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    drawn = {"kinds": kinds(run), "wrong": wrong(run), "loss": loss(run)}
    if "lengths" in arms_of(run):
        drawn["stages"] = stages(run)
    if "lora" in arms_of(run):
        drawn |= {"tuning": tuning(run), "bytes": held(run)}
    if "dpo" in arms_of(run):
        drawn |= {"teacher": teacher(run), "student": student(run)}
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def arms_of(run: Run) -> set[str]:
    """The arms that this run has."""
    return set(run.arms[run.seeds[0]])


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def world(run: Run) -> World:
    """What was shown and asked."""
    return world_of(run.arms[run.seeds[0]]["llava"]["objects"])


def kinds(run: Run) -> plots.Figure:
    """Every kind of question by itself."""
    return plots.bars_with_intervals(
        {kind: measured(run, "llava", f"answers_{kind}") for kind in world(run).kinds}
        | {"all kinds": measured(run, "llava", "answers")},
        x_label="right answers about held-out combinations",
        baselines={"blind, all kinds": fmean(measured(run, "blind", "answers"))},
        highlight="all kinds",
        percent=True,
    )


def wrong(run: Run) -> plots.Figure:
    """The first wrong answers of the first seed, under their pictures."""
    kept = run.arms[run.seeds[0]]["llava"]["answers_wrong"][:8]
    if not kept:  # then some that were answered rightly
        first = [asked_at("test", TEST_SEED, number, world(run))[1] for number in range(4)]
        kept = [[number, question.text, question.answer, question.answer] for number, question in enumerate(first)]
    scenes = [asked_at("test", TEST_SEED, number, world(run))[0] for number, *_ in kept]
    captions = [f"{broken(question)}\n{given or '—'} ({right})" for _, question, given, right in kept]
    marks = [given == right for _, _, given, right in kept]
    return plots.image_grid(list(render_images(scenes, IMAGE_SIZE)), captions, correct=marks, columns=4)


def broken(question: str, width: int = 26) -> str:
    """A question over several lines."""
    lines = [""]
    for word in question.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def stages(run: Run) -> plots.Figure:
    """What a first stage is worth, the shorter the second."""
    return plots.learning_curves(
        {
            "with a first stage": measured(run, "lengths", "answers_curve"),
            "stage 2 alone": measured(run, "lengths, stage 2 alone", "answers_curve"),
        },
        x_label="steps of the second stage",
        y_label="right answers",
        percent=True,
    )


def tuning(run: Run) -> plots.Figure:
    """What of the language model has to learn, and for which questions."""
    tuned = {name: arm for name, arm in TUNED.items() if arm in arms_of(run)}
    asked = {kind: f"answers_{kind}" for kind in world(run).kinds} | {"all": "answers"}
    return plots.heatmap(
        [[fmean(measured(run, arm, name)) for name in asked.values()] for arm in tuned.values()],
        row_labels=list(tuned),
        column_labels=list(asked),
        percent=True,
    )


def held(run: Run) -> plots.Figure:
    """… and what it costs in memory."""
    parts = ("weight_bytes", "gradient_bytes", "moment_bytes")
    return plots.bars_with_intervals(
        {
            name: [sum(run.arms[seed][arm][part] for part in parts) / 1_000_000 for seed in run.seeds]
            for name, arm in TUNED.items()
            if arm in arms_of(run)
        },
        x_label="megabytes",
        highlight="all of it",
    )


def loss(run: Run) -> plots.Figure:
    """How the answers become less surprising, with an image and without."""
    return plots.learning_curves(
        {name: measured(run, arm, "loss_curve") for name, arm in LEARNING.items() if arm in arms_of(run)},
        x_label="step of the second stage",
        y_label="surprise (nats a token)",
    )


def teacher(run: Run) -> plots.Figure:
    """What preferences change, and what they leave."""
    return plots.bars_with_intervals(
        {
            f"{name}, {when}": measured(run, "dpo", f"{name}_{when}")
            for name in ("patient", "right")
            for when in ("before", "after")
        },
        x_label="share of the answers",
        percent=True,
    )


def student(run: Run) -> plots.Figure:
    """What a large decoder's expectations are worth to a small one."""
    curves = {"taught": "student, taught", "alone": "student, alone"}
    return plots.learning_curves(
        {name: measured(run, arm, "bits_per_byte_curve") for name, arm in curves.items()},
        y_label="bits a byte, new text",
    )
