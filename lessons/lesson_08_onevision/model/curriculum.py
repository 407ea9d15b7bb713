"""The curriculum of LLaVA-OneVision and a planner for other lengths (arXiv:2408.03326, section 5 and table 1).

    1     language–image alignment   0.558 M images           projector          one tile
    1.5   high-quality knowledge     4 M images               all                up to 5 tiles
    2a    single image               3.2 M images             all                up to 10 tiles
    2b    one mix (OneVision)        1.6 M: single image, several images, video  as many tokens each

Every stage continues with the weights of the last one, for one epoch. Inputs become longer and more varied from stage
to stage. Videos appear in the last stage only, so what the model does with them is mostly transferred from images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shared.finetuning import adapter_parameter_names
from shared.training import Stage

IMAGE, IMAGES, VIDEO = "image", "images", "video"
INPUT_TYPES = (IMAGE, IMAGES, VIDEO)
PARTS = {"vision": "vision_encoder.*", "projector": "projector.*", "language": "language_model.*", "newline": "newline"}
"""Names of the parts that a stage can train, and the patterns of their parameters."""


@dataclass(frozen=True)
class CurriculumStage:
    """One stage of training.

    name         of the stage
    samples      number of training examples per type of input ("image", "images", "video")
    trained      the parts that are trained, keys of `PARTS`
    max_tiles    most tiles of a single image, the whole image included
    vision_rate  learning rate of the vision encoder divided by that of the other parts

    Raises ValueError for an unknown type of input or part, and for a stage without samples.
    """

    name: str
    samples: Mapping[str, int]
    trained: tuple[str, ...] = tuple(PARTS)
    max_tiles: int = 10
    vision_rate: float = 0.2

    def __post_init__(self) -> None:
        for label, names, allowed in (
            ("type of input", self.samples, INPUT_TYPES),
            ("trained part", self.trained, tuple(PARTS)),
        ):
            if unknown := [name for name in names if name not in allowed]:
                raise ValueError(f"stage {self.name!r}: no {label} {unknown[0]!r}; expected {', '.join(allowed)}")
        if min(self.samples.values(), default=0) < 0 or self.size < 1:
            raise ValueError(f"stage {self.name!r} has {dict(self.samples)} samples; expected at least one in all")

    @property
    def size(self) -> int:
        """Number of training examples of all types."""
        return sum(self.samples.values())

    @property
    def weights(self) -> dict[str, float]:
        """Fraction of the examples per type of input."""
        return {name: count / self.size for name, count in self.samples.items() if count}


ONEVISION: tuple[CurriculumStage, ...] = (
    CurriculumStage("alignment", {IMAGE: 558_000}, ("projector", "newline"), max_tiles=1),
    CurriculumStage("high-quality knowledge", {IMAGE: 4_000_000}, max_tiles=5),
    CurriculumStage("single image", {IMAGE: 3_200_000}),
    CurriculumStage("onevision", {IMAGE: 800_000, IMAGES: 560_000, VIDEO: 350_000}),
)
"""The four stages of the paper; the last one's parts are the paper's rounded counts, which add up to 1.7 million."""


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a plan: its description, its number of steps, and the type of input of every step."""

    stage: CurriculumStage
    steps: int
    inputs: tuple[str, ...]

    def training_stage(self, model: nn.Module) -> Stage:
        """Return the stage for the training loop; of a language model with adapters, only these are trained."""
        patterns = [PARTS[name] for name in self.stage.trained if name != "language"]
        if "language" in self.stage.trained:
            patterns += adapter_parameter_names(model) or [PARTS["language"]]
        return Stage(self.steps, tuple(patterns))


def plan_curriculum(
    steps: int, stages: Sequence[CurriculumStage] = ONEVISION, available: Sequence[str] = INPUT_TYPES
) -> list[PlannedStage]:
    """Distribute training steps over the stages in proportion to their examples, and mix the inputs within each stage.

    available  types of input that there are data for; the examples of other types are left out, and so are stages
               that would have none

    Raises ValueError when a stage that is left would have no step, and for a curriculum that `check_order` refuses.
    """
    check_order(stages)
    usable = []
    for stage in stages:
        samples = {name: count for name, count in stage.samples.items() if count and name in available}
        if samples:
            usable.append(CurriculumStage(stage.name, samples, stage.trained, stage.max_tiles, stage.vision_rate))
    if steps < len(usable) or not usable:
        raise ValueError(f"{steps} steps for {len(usable)} stages with data; expected at least one stage and step each")
    counts = split_steps(torch.tensor([stage.size for stage in usable]), steps).tolist()
    planned = []
    for stage, count in zip(usable, counts, strict=True):
        names = list(stage.weights)
        order = mixture_schedule(torch.tensor(list(stage.weights.values()), dtype=torch.float64), count)
        planned.append(PlannedStage(stage, count, tuple(names[index] for index in order.tolist())))
    return planned


def check_order(stages: Sequence[CurriculumStage]) -> None:
    """Raise ValueError unless a curriculum goes from easy to hard, as the paper's does.

    The first stage trains no part but the projector and the newline; inputs become no shorter; and no type of input
    that was trained is absent from a later stage, since it would be forgotten.
    """
    if not stages:
        raise ValueError("a curriculum has no stage; expected at least one")
    if not set(stages[0].trained) <= {"projector", "newline"}:
        raise ValueError(
            f"stage {stages[0].name!r} is the first and trains {', '.join(stages[0].trained)}; expected only the "
            "projector and the newline, whose random outputs would damage pretrained parts"
        )
    for before, after in pairwise(stages):
        if after.max_tiles < before.max_tiles:
            raise ValueError(
                f"stage {after.name!r} has up to {after.max_tiles} tiles after {before.max_tiles} in {before.name!r}; "
                "expected at least as many"
            )
        if lost := [name for name in before.weights if name not in after.weights]:
            raise ValueError(
                f"stage {after.name!r} has no examples of {lost[0]!r}, which stage {before.name!r} trains; replay some"
            )


def split_steps(samples: Int[Tensor, "stages"], steps: int) -> Int[Tensor, "stages"]:
    """Return the steps of each stage: one each, and the rest in proportion to the samples by largest remainders.

    samples  number of examples per stage; at least one each, and at most `steps` stages
    """
    # exercise 8.8: divide the steps among the stages
    rest = steps - len(samples)
    quotas = samples.double() * rest / samples.sum()
    counts = quotas.floor().long()
    largest = torch.sort(quotas - counts, descending=True, stable=True).indices
    counts[largest[: rest - int(counts.sum())]] += 1
    return counts + 1
    # end exercise


def mixture_schedule(weights: Float[Tensor, "types"], steps: int) -> Int[Tensor, "steps"]:
    """Return the type of input of every step, so that each prefix has nearly the fractions of the mixture.

    Every step takes the type that is furthest behind its fraction; among equals the first. So no type is missing for
    long, which random draws do not guarantee.

    weights  fraction of each type; they add up to 1
    """
    # exercise 8.9: mix the types of input
    counts = torch.zeros_like(weights)
    order = []
    for step in range(1, steps + 1):
        chosen = int((weights * step - counts).argmax())
        counts[chosen] += 1
        order.append(chosen)
    return torch.tensor(order, dtype=torch.long)
    # end exercise
