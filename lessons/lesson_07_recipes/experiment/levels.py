"""The five axes of the lab, their two levels, and the designs that choose which of the 32 recipes are trained."""

from lessons.lesson_07_recipes.experiment.factorial import Design, half_fraction, quarter_fraction

LEVEL_NAMES: dict[str, tuple[str, str]] = {
    "encoder": ("contrastive", "contrastive + captions"),
    "connector": ("MLP", "Q-Former"),
    "language model": ("dense", "sparse"),
    "data": ("captions", "captions + questions"),
    "resolution": ("16 tokens", "64 tokens"),
}
"""The axes, each with the names of its levels −1 and +1."""
FACTORS = tuple(LEVEL_NAMES)
ENCODER_ARMS = {-1: "recipes, contrastive encoder", 1: "recipes, captioning encoder"}
"""The arms that train the runs of each level of the encoder: they share one encoder and its features."""
IMAGE_TOKENS = {-1: 16, 1: 64}

Levels = dict[str, int]
"""A recipe: the level, −1 or +1, of each axis."""


def lab_design(runs: int) -> Design:
    """Return the design of so many runs: 16 in a half fraction of resolution V, eight in a quarter of resolution III.

    Raises ValueError for another number.
    """
    match runs:
        case 16:
            return half_fraction(FACTORS)
        case 8:
            return quarter_fraction(FACTORS)
    raise ValueError(f"no design has {runs} runs; expected 8 or 16")


def recipe_name(levels: Levels) -> str:
    """Return the levels of a recipe by name, the encoder's first."""
    return ", ".join(LEVEL_NAMES[factor][levels[factor] > 0] for factor in FACTORS)
