"""Figures of lesson 10, drawn from the measurements of a run."""

from lessons.lesson_10_internvl.experiment.arms import ORDERS, TEST_STEPS, TESTED
from lessons.lesson_10_internvl.experiment.routing import FRACTIONS
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "corpora": "What three orders of the same two corpora leave at equal tokens: exact answers about images, answers "
    "after seven examples in text, and, as a bar of its own, the model before any image.",
    "lengths": "Accuracy on sequences of 4 images, the most in training, and of 16 and 32, at δ = 1 and at the largest "
    "δ that stays within the trained positions.",
    "steps": "Accuracy on sequences of 32 images by δ at test; the model is the same.",
    "router": "Accuracy against the fraction of visual tokens that is saved. The compressed images are those of the "
    "router's lowest scores, or random ones.",
    "deployment": "Requests per second in one process and in two.",
    "loss": "Training loss of the reader of image sequences: cross-entropy per answer token.",
}
NAMES = {"mixed": "mixed from the start", "multimodal only": "images only", "post-hoc": "images, then text"}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Draw every figure that the run's arms allow, the first one first on the page."""
    arms = set(run.arms[run.seeds[0]])
    drawn: dict[str, plots.Figure] = {}
    if set(ORDERS) <= arms:
        drawn["corpora"] = corpora(run)
    if "v2pe" in arms:
        drawn |= {"lengths": accuracy_by_length(run), "steps": accuracy_by_step(run), "loss": loss_curves(run)}
    if "router" in arms:
        drawn["router"] = accuracy_by_tokens(run)
    if "deployment" in arms:
        drawn["deployment"] = requests_per_second(run)
    return {name: drawn[name] for name in CAPTIONS if name in drawn}


def corpora(run: Run) -> plots.Figure:
    """Draw accuracies of the three orders."""
    bars = {
        f"{title}, {NAMES[arm]}": run.measurements(arm, name)
        for title, name in (("images", "answers"), ("few-shot in text", "few_shot"))
        for arm in ORDERS
    }
    bars["few-shot in text, before training"] = run.measurements("mixed", "before_few_shot")
    return plots.bars_with_intervals(bars, x_label="answered exactly", percent=True)


def accuracy_by_length(run: Run) -> plots.Figure:
    """Draw the accuracy against the number of images."""
    curves = {
        title: [(list(TESTED), [arms[arm][f"{images}{name}"] for images in TESTED]) for arms in run.arms.values()]
        for title, arm, name in (
            ("V2PE, δ chosen", "v2pe", "_chosen"),
            ("V2PE, δ = 1", "v2pe", "x1_all"),
            ("δ = 1 in training too", "fixed step", "x1_all"),
        )
        if arm in run.arms[run.seeds[0]]
    }
    return plots.learning_curves(curves, x_label="images (2 to 4 in training)", y_label="accuracy", percent=True)


def accuracy_by_step(run: Run) -> plots.Figure:
    """Draw the accuracy on the longest sequences for each step δ."""
    bars = {
        f"δ = {f'1/{round(1 / step)}' if step < 1 else '1'}": run.measurements("v2pe", f"{TESTED[-1]}x{step:g}_all")
        for step in TEST_STEPS
    }
    return plots.bars_with_intervals(bars, x_label=f"accuracy, {TESTED[-1]} images", percent=True)


def accuracy_by_tokens(run: Run) -> plots.Figure:
    """Draw the accuracy of routed and of random images against the saved fraction of tokens."""
    percents = [round(100 * fraction) for fraction in FRACTIONS]
    saved = [0.75 * percent for percent in percents]
    curves = {
        title: [(saved, [arms["router"][f"{name}_{percent}"] for percent in percents]) for arms in run.arms.values()]
        for title, name in (("the router's order", "routed"), ("random order", "random"))
    }
    return plots.learning_curves(curves, x_label="visual tokens saved (%)", y_label="accuracy", percent=True)


def requests_per_second(run: Run) -> plots.Figure:
    """Draw the throughput of the deployments."""
    bars = {
        title: run.measurements("deployment", f"{name}_per_second")
        for title, name in (
            ("one process, one thread", "one_thread"),
            ("one process, two threads", "two_threads"),
            ("two processes, one thread each", "two_processes"),
        )
    }
    return plots.bars_with_intervals(bars, x_label="requests per second")


def loss_curves(run: Run) -> plots.Figure:
    """Draw the training loss of the readers of image sequences."""
    curves = {
        title: run.measurements(arm, "loss_curve")
        for title, arm in (("δ drawn", "v2pe"), ("δ = 1", "fixed step"))
        if arm in run.arms[run.seeds[0]]
    }
    return plots.learning_curves(curves, y_label="cross-entropy (nats per token)")
