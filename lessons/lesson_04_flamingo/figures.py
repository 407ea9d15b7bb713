"""The lesson's figures, drawn from what a run has measured."""

from statistics import fmean

import torch

from lessons.lesson_04_flamingo.arms.few_shot import SHOTS
from lessons.lesson_04_flamingo.model import latest_image, sees
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "shots": "Accuracy by the number of examples in the prompt, on rules met in training and on rules that were held out.",
    "gates": "How far each gate of the attention opens while it learns (mean of |tanh|, by layer): all begin at zero.",
    "ablations": "After four examples of a held-out rule: with gates, without, and with a language model that learns along.",
    "forgetting": "What a token of plain text costs before the training, and after it.",
    "latest_image": "Which latents each word sees, in a row of two documents with two images each (two latents an image).",
}
ARMS = {"Flamingo": "flamingo", "without gates": "without gates", "language model learns along": "language learns"}


def draw(run: Run) -> dict[str, plots.Card]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    return {
        "shots": shots(run),
        "gates": gates(run),
        "ablations": ablations(run),
        "forgetting": forgetting(run),
        "latest_image": looks(),
    }


def trained(run: Run) -> dict[str, str]:
    """The arms of this run: what a figure calls each, and its name."""
    return {name: arm for name, arm in ARMS.items() if arm in run.arms[run.seeds[0]]}


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def shots(run: Run) -> plots.Card:
    """More examples, more right answers."""
    return plots.learning_curves(
        {
            name: [
                (list(SHOTS), [run.arms[seed]["flamingo"][f"{kind}_{count}"] for count in SHOTS]) for seed in run.seeds
            ]
            for name, kind in (("rules met in training", "seen"), ("held-out rules", "held_out"))
        },
        x_label="examples in the prompt",
        y_label="answers right to the last token",
        percent=True,
    )


def gates(run: Run) -> plots.Card:
    """Every layer's gate on what is seen."""
    names = sorted(name for name in run.arms[run.seeds[0]]["flamingo"] if name.startswith("attention_"))
    return plots.learning_curves(
        {f"layer {name.split('_')[1]}": measured(run, "flamingo", name) for name in names[: len(plots.PALETTE)]},
        y_label="|tanh(gate)|",
    )


def ablations(run: Run) -> plots.Card:
    """What gates and freezing are for, on the task."""
    return plots.bars_with_intervals(
        {name: measured(run, arm, "held_out_4") for name, arm in trained(run).items()},
        x_label="right after four examples of a held-out rule",
        baselines={"no examples": fmean(measured(run, "flamingo", "held_out_0"))},
        highlight="Flamingo",
        percent=True,
    )


def forgetting(run: Run) -> plots.Card:
    """… and on what the language model could do before."""
    return plots.bars_with_intervals(
        {name: measured(run, arm, "text_bits_after") for name, arm in trained(run).items()},
        x_label="bits a token of text",
        baselines={"before": fmean(measured(run, "flamingo", "text_bits_before"))},
        highlight="Flamingo",
    )


def looks() -> plots.Card:
    """Two documents in one row: words see their latest image, and no document sees another's."""
    image = 9
    tokens = torch.tensor([[1, image, 2, 3, image, 4, 1, 5, image, 2, 3, image, 6]])
    segments = torch.tensor([[0] * 6 + [1] * 7])
    seen = sees(latest_image(tokens, segments, image), 4, 2)[0]
    words = ["<image>" if token == image else "begin" if token == 1 else "word" for token in tokens[0].tolist()]
    latents = [f"image {number // 2}" for number in range(8)]
    return plots.matrix(seen.float().T, row_labels=latents, column_labels=words)
