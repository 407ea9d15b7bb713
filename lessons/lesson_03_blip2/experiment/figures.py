"""The lesson's figures, drawn from what a run has measured."""

from statistics import fmean

import torch

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.image import render_images
from data.toybox.language import is_true
from data.toybox.tensors import IMAGE_SIZE
from lessons.lesson_03_blip2.experiment.bridges import OBJECTS
from lessons.lesson_03_blip2.model import visible
from shared import plots
from shared.course.lesson import Run

CAPTIONS = {
    "queries": "Where each query looks in the last block that looks, on held-out scenes: the scene, then a map a query.",
    "answers": "Right answers about held-out combinations, by bridge, at equal steps of the second stage (a dot a seed).",
    "composition": "Captions that are true: of new scenes whose combinations the bridge has met, and of scenes with one it has not.",
    "captions": "Captions as the model with both stages writes them: above of new scenes whose combinations it has met, below of held-out ones.",
    "second_stage": "The second stage's loss: the surprise of the frozen language model at captions and answers.",
    "masks": "The three masks of one Q-Former: four queries, then four words; row i sees column j.",
}
BRIDGES = {
    "both stages": "both stages",
    "stage 2 alone": "stage 2 alone",
    "all patches, one matrix": "all patches",
    "mean of the patches": "mean pooling",
}


def draw(run: Run) -> dict[str, plots.Figure]:
    """Every figure that the run's arms allow, the first one the lesson's face."""
    return {
        "queries": queries(run),
        "answers": answers(run),
        "composition": composition(run),
        "captions": captions(run),
        "second_stage": second_stage(run),
        "masks": masks(),
    }


def trained(run: Run) -> dict[str, str]:
    """The bridges of this run: what a figure calls each, and its arm."""
    return {name: arm for name, arm in BRIDGES.items() if arm in run.arms[run.seeds[0]]}


def measured(run: Run, arm: str, name: str) -> list:
    """One thing that an arm has measured, for every seed."""
    return [run.arms[seed][arm][name] for seed in run.seeds]


def queries(run: Run) -> plots.Figure:
    """The first held-out scenes that were captioned, and each query's look at them."""
    maps = torch.tensor(run.arms[run.seeds[0]]["both stages"]["query_maps"])
    side = round(maps.shape[2] ** 0.5)
    scenes = sample_scenes("test", TEST_SEED, len(maps), OBJECTS)
    names = [f"query {number + 1}" for number in range(maps.shape[1])]
    return plots.attention_overlay(
        list(render_images(scenes, IMAGE_SIZE)), maps.unflatten(2, (side, side)), captions=names
    )


def answers(run: Run) -> plots.Figure:
    """Every bridge's answers, beside one who has not looked, and one who was told in words."""
    return plots.bars_with_intervals(
        {name: measured(run, arm, "answers") for name, arm in trained(run).items()},
        x_label="questions about held-out combinations answered rightly",
        baselines={"blind": fmean(measured(run, "both stages", "answers_blind"))} | in_words(run, "answers"),
        highlight="both stages",
        percent=True,
    )


def in_words(run: Run, name: str) -> dict[str, float]:
    """What the language model reaches that is told in words, where this run has measured it."""
    arm = "told in words"
    return {arm: fmean(measured(run, arm, name))} if arm in run.arms[run.seeds[0]] else {}


def composition(run: Run) -> plots.Figure:
    """Met and unmet combinations side by side, for every bridge."""
    return plots.bars_with_intervals(
        {
            f"{name}, {which}": measured(run, arm, f"{of}captions")
            for name, arm in trained(run).items()
            for which, of in (("met", "seen_"), ("held out", ""))
        },
        x_label="captions that are true, thing for thing",
        baselines=in_words(run, "captions"),
        highlight="both stages, held out",
        percent=True,
    )


def captions(run: Run) -> plots.Figure:
    """What it writes, whether true or not: a row of new scenes of met combinations, and one of held-out ones."""
    arm, scenes, texts = run.arms[run.seeds[0]]["both stages"], [], []
    for name, split in (("seen_captions_written", "validation"), ("captions_written", "test")):
        written = arm[name][:4]
        scenes += sample_scenes(split, TEST_SEED, len(written), OBJECTS)
        texts += written
    true = [is_true(text, scene) for text, scene in zip(texts, scenes, strict=True)]
    broken = [text.replace(" and ", "\nand ") for text in texts]
    return plots.image_grid(list(render_images(scenes, IMAGE_SIZE)), broken, correct=true, columns=4)


def second_stage(run: Run) -> plots.Figure:
    """The loss of every bridge by steps of the second stage."""
    return plots.learning_curves(
        {name: measured(run, arm, "loss_curve") for name, arm in trained(run).items()},
        x_label="step of the second stage",
        y_label="surprise (nats a token)",
    )


def masks() -> plots.Figure:
    """One sequence under the three masks, side by side."""
    segments = torch.zeros(1, 4, dtype=torch.long)
    card, axes = plots.subplots(height=2.9, columns=3)
    for axis, task in zip(axes[0], ("contrastive", "matching", "generation"), strict=True):
        seen = visible(task, 4, segments)[0]
        axis.imshow(seen, cmap=plots.SEQUENTIAL, vmin=0, vmax=1.4)
        axis.set(xticks=[1.5, 5.5], xticklabels=["queries", "words"], yticks=[1.5, 5.5], xlabel=task)
        axis.set_yticklabels(["queries", "words"], rotation=90, va="center")
        # White lines between the places, a wider one between queries and words.
        for place in range(1, len(seen)):
            for line in (axis.axhline, axis.axvline):
                line(place - 0.5, color="white", linewidth=4 if place == 4 else 1)
        axis.grid(visible=False)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    return card
