"""Figures of lesson 5's second part, drawn from the measurements of a run."""

from statistics import fmean

from data.toybox.conversations import scene_setting
from lessons.lesson_05_llava.experiment.figures import arm_names
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "tuning": "Accuracy on unseen combinations by question type and tuning method, after equal steps of stage 2 (mean "
    "over seeds).",
    "answer_style": "Accuracy of full-sentence answers about unseen combinations, by tuning method, for a model that "
    "answered in words before (one dot per seed). Dashed: its accuracy in words.",
    "bytes": "Megabytes of the language model's weights, gradients and optimizer moments, by tuning method.",
    "teacher": "Answers about unseen combinations before and after DPO: fraction in the patient style, and fraction "
    "correct (one dot per seed).",
    "student": "Cross-entropy of a small decoder on new text, distilled from a large one and trained on text only.",
}
STYLE_METHODS = {"full fine-tuning": "full", "LoRA": "lora", "DoRA": "dora", "QLoRA": "qlora"}
METHODS = {
    "full fine-tuning": "full fine-tuning",
    "LoRA": "lora",
    "DoRA": "dora",
    "QLoRA (4-bit base weights)": "qlora",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow."""
    drawn = {}
    if "lora" in arm_names(run):
        drawn |= {"tuning": accuracy_by_method(run), "bytes": memory_by_method(run)}
    if "new answer style" in arm_names(run):
        drawn["answer_style"] = style_by_method(run)
    if "dpo" in arm_names(run):
        drawn |= {"teacher": preference_change(run), "student": distillation_curves(run)}
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def accuracy_by_method(run: Run) -> plots.Figure:
    """Draw the accuracy of each question type under each tuning method."""
    types = scene_setting(run.arms[run.seeds[0]]["full fine-tuning"]["objects"]).question_types
    columns = {name: f"answers_{name}" for name in types} | {"all": "answers"}
    return plots.heatmap(
        [[fmean(run.measurements(arm, name)) for name in columns.values()] for arm in METHODS.values()],
        row_labels=list(METHODS),
        column_labels=list(columns),
        percent=True,
    )


def style_by_method(run: Run) -> plots.Figure:
    """Draw the accuracy of sentences under each tuning method, beside that of words before the adaptation."""
    arm = "new answer style"
    return plots.bars_with_intervals(
        {name: run.measurements(arm, f"{method}_sentences") for name, method in STYLE_METHODS.items()},
        x_label="accuracy of full sentences",
        baselines={"words, before": fmean(run.measurements(arm, "words_before"))},
        highlight="full fine-tuning",
        percent=True,
    )


def memory_by_method(run: Run) -> plots.Figure:
    """Draw the memory that each tuning method holds besides activations."""
    parts = ("weight_bytes", "gradient_bytes", "moment_bytes")
    return plots.bars_with_intervals(
        {
            name: [sum(run.arms[seed][arm][part] for part in parts) / 1_000_000 for seed in run.seeds]
            for name, arm in METHODS.items()
        },
        x_label="megabytes",
        highlight="full fine-tuning",
    )


def preference_change(run: Run) -> plots.Figure:
    """Draw the style and the accuracy of answers before and after preference training."""
    return plots.bars_with_intervals(
        {
            f"{label}, {time} DPO": run.measurements("dpo", f"{name}_{time}")
            for label, name in (("patient style", "patient"), ("correct", "right"))
            for time in ("before", "after")
        },
        x_label="fraction of the answers",
        percent=True,
    )


def distillation_curves(run: Run) -> plots.Figure:
    """Draw the cross-entropy of both students by step."""
    arms = {"distilled": "student, distilled", "text only": "student, text only"}
    return plots.learning_curves(
        {name: run.measurements(arm, "bits_per_byte_curve") for name, arm in arms.items()},
        y_label="bits per byte, new text",
    )
