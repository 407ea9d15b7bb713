"""Two stages of training: first the projector learns to speak, then the language model learns to answer (arXiv:2304.08485, section 4.2)."""

from torch import nn

from shared.finetuning import adapter_parameter_names
from shared.training import Stage

PROJECTOR, LANGUAGE = "projector.*", "language.*"


def first_stage(steps: int) -> Stage:
    """Feature alignment: the projector alone learns, to put images where the language model's words already are."""
    return Stage(steps, (PROJECTOR,))


def second_stage(steps: int, model: nn.Module) -> Stage:
    """Instruction tuning: projector and language model learn; of one that has adapters, these and nothing else.

    The eye stays as it is in both stages.
    """
    return Stage(steps, (PROJECTOR, *(adapter_parameter_names(model) or (LANGUAGE,))))


def both_stages(first: int, second: int, model: nn.Module) -> tuple[Stage, ...]:
    """The whole training; a stage of no steps is left out."""
    stages = (first_stage(first), second_stage(second, model))
    return tuple(stage for stage in stages if stage.steps)
