"""Figures of lesson 7, drawn from the measurements of a run."""

from collections.abc import Mapping

from lessons.lesson_07_recipes.experiment.arms import PREDICTED
from lessons.lesson_07_recipes.experiment.factorial_figures import draw_effects, draw_half_normal
from lessons.lesson_07_recipes.experiment.levels import LEVEL_NAMES
from lessons.lesson_07_recipes.experiment.scores import design_of, scores_by_seed
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "half_normal": "Sizes of all effects on the accuracy on unseen combinations, averaged over seeds, against "
    "half-normal quantiles. Effects above the dashed line exceed Lenth's margin of one effect.",
    "effects": "Main effects and two-factor interactions on the accuracy on unseen combinations (one dot per seed).",
    "prediction": "Accuracy on new scenes of seen combinations: random answers, runs of the design, and the predicted "
    "recipe as predicted and as trained.",
    "lengths": "Cross-entropy of new text by multiple of the trained length, for one set of weights under several "
    "rotary scalings, and after tuning on long windows.",
    "losses": "Cross-entropy of new text for decoders of equal active size (one dot per seed).",
    "experts": "Fraction of the choices that fall on each of eight experts, per layer (first seed).",
}
SCALINGS = {
    "unscaled": "none",
    "position interpolation": "position interpolation",
    "YaRN": "YaRN",
    "unscaled, tuned": "none, tuned",
    "YaRN, tuned": "YaRN, tuned",
}
DECODERS = ("dense", "grouped", "latent", "sparse", "sparse latent", "large")


def draw(run: Run) -> Mapping[str, plots.Figure]:
    """Draw every figure that the run's arms allow, in the order of the captions."""
    arms = set(run.arms[run.seeds[0]])
    drawn: dict[str, plots.Figure] = {}
    if PREDICTED in arms:
        design, scores = design_of(run.arms[run.seeds[0]]), scores_by_seed(run, "unseen")
        drawn |= {"half_normal": draw_half_normal(design, scores), "prediction": prediction(run)}
        if len(run.seeds) > 1:
            drawn["effects"] = draw_effects(design, scores, LEVEL_NAMES)
    if "dense" in arms:
        drawn |= {"lengths": lengths(run), "losses": losses(run, arms)}
    if "sparse" in arms:
        loads = run.arms[run.seeds[0]]["sparse"]["loads"]
        fractions = [[count / sum(layer) for count in layer] for layer in loads]
        rows = [f"layer {number + 1}" for number in range(len(loads))]
        drawn["experts"] = plots.heatmap(fractions, row_labels=rows, x_label="expert", percent=True)
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def prediction(run: Run) -> plots.Figure:
    """Draw random answers, and the mean and the best run of the design, beside the predicted recipe."""
    return plots.bars_with_intervals(
        {
            "random answers": run.measurements(PREDICTED, "chance"),
            "mean of all runs": run.measurements(PREDICTED, "mean_run"),
            "best run": run.measurements(PREDICTED, "best_run"),
            "predicted recipe,\npredicted": run.measurements(PREDICTED, "predicted"),
            "predicted recipe,\ntrained": run.measurements(PREDICTED, "seen"),
        },
        x_label="accuracy on new scenes of seen combinations",
        highlight="predicted recipe,\ntrained",
        percent=True,
    )


def lengths(run: Run) -> plots.Figure:
    """Draw the cross-entropy at multiples of the trained length."""
    measured = run.arms[run.seeds[0]]["dense"]
    curves = {
        label: [(list(range(1, len(values) + 1)), values) for values in run.measurements("dense", f"length_{name}")]
        for label, name in SCALINGS.items()
        if f"length_{name}" in measured
    }
    return plots.learning_curves(
        curves, x_label="multiple of the trained length", y_label="cross-entropy (nats per token)"
    )


def losses(run: Run, arms: set[str]) -> plots.Figure:
    """Draw the loss of every decoder."""
    return plots.bars_with_intervals(
        {name: run.measurements(name, "loss") for name in DECODERS if name in arms},
        x_label="cross-entropy of new text (nats per token)",
        highlight="dense",
    )
