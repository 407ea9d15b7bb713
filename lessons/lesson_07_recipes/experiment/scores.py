"""Read the scores of a design's runs from the measurements of its arms, and effects from the scores."""

import torch
from jaxtyping import Float
from torch import Tensor

from lessons.lesson_07_recipes.experiment.factorial import Design, effect_estimates
from lessons.lesson_07_recipes.experiment.levels import ENCODER_ARMS, FACTORS, lab_design
from shared.course.claims import Measure
from shared.course.lesson import Arms, Run


def run_scores(arms: Arms, name: str) -> Float[Tensor, "runs"]:
    """Return one measurement of every run, in the order of the design, from both arms that train runs."""
    measured = dict(arms[ENCODER_ARMS[-1]]) | dict(arms[ENCODER_ARMS[1]])
    return torch.tensor([measured[f"run_{number}_{name}"] for number in range(measured["runs"])], dtype=torch.float64)


def design_of(arms: Arms) -> Design:
    """Return the design of the arms' runs."""
    return lab_design(arms[ENCODER_ARMS[1]]["runs"])


def scores_by_seed(run: Run, name: str) -> Float[Tensor, "runs seeds"]:
    """Return one measurement of every run for every seed."""
    return torch.stack([run_scores(run.arms[seed], name) for seed in run.seeds], dim=1)


def main_effect(factor: str, name: str = "unseen") -> Measure:
    """Return a measure of the main effect of one factor: the mean score at +1 minus the mean score at −1."""
    place = FACTORS.index(factor)

    def measure(arms: Arms) -> float:
        columns = design_of(arms).columns([[place]])
        return float(effect_estimates(columns, run_scores(arms, name)[:, None])[0, 0])

    return measure


def largest_interaction(arms: Arms, name: str = "unseen") -> float:
    """Return the size of the largest two-way interaction; main effects that it is confounded with count as such."""
    design = design_of(arms)
    interactions = [effect for effect in design.effects if len(effect) == 2]
    estimates = effect_estimates(design.columns(interactions), run_scores(arms, name)[:, None])
    return float(estimates.abs().max())


def mean_score(arms: Arms, name: str = "unseen") -> float:
    """Return the mean score of all runs."""
    return float(run_scores(arms, name).mean())
