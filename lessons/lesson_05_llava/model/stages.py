"""The two training stages: feature alignment, then instruction tuning (arXiv:2304.08485, section 4.2)."""

from torch import nn

from shared.finetuning import adapter_parameter_names
from shared.training import Stage

PROJECTOR, LANGUAGE_MODEL = "projector.*", "language_model.*"


def first_stage(steps: int) -> Stage:
    """Return stage 1, feature alignment: only the projector is trained."""
    return Stage(steps, (PROJECTOR,))


def second_stage(steps: int, model: nn.Module) -> Stage:
    """Return stage 2, instruction tuning: projector and language model are trained; with adapters, only these.

    The vision encoder is frozen in both stages.
    """
    return Stage(steps, (PROJECTOR, *(adapter_parameter_names(model) or (LANGUAGE_MODEL,))))


def both_stages(first: int, second: int, model: nn.Module) -> tuple[Stage, ...]:
    """Return both stages with their steps; a stage of zero steps is left out."""
    stages = (first_stage(first), second_stage(second, model))
    return tuple(stage for stage in stages if stage.steps)
