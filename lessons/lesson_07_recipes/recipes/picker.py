"""Pick a recipe for a budget from the published evidence; where papers disagree, the cheaper setting is taken.

    recipe = pick_recipe(Budget(parameters=3e9, images=10e6, image_tokens=729))
    recipe["encoder"].setting          "SigLIP-SO400M/14 at 384 px"
    recipe["encoder"].verdicts         the evidence behind it

The evidence decides between settings; the budget decides which of them fit. The sizes that the budget is compared with
are properties of the published encoders, and MAX_ENCODER_FRACTION is this module's own limit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from lessons.lesson_07_recipes.recipes.choices import AXES
from lessons.lesson_07_recipes.recipes.evidence import Verdict, Vote, verdict
from lessons.lesson_07_recipes.recipes.table import Tables, load_tables
from shared.errors import CourseError

MIN_PARAMETERS, MIN_IMAGE_TOKENS = 600e6, 64
"""Below these no paper of the tables has measured anything that a recipe could be built from."""
MAX_ENCODER_FRACTION = 0.3
"""The largest fraction of the parameters that the encoder may take."""
PRETRAINING_IMAGES = 20e6
"""From here the evidence of pretraining counts, below it that of instruction tuning: the largest instruction mix of the
tables has 10 million examples, the pretraining of MM1 and Idefics2 more than a billion images."""
SCALE_FACTOR = 4.0
"""Evidence counts fully for language models of at most this many times its own size, up or down."""
MIN_CROPS, MAX_CROPS = 4, 12
PERCEIVER_TOKENS = 64


@dataclass(frozen=True)
class Budget:
    """What a model may cost.

    parameters    of encoder, connector and language model together
    images        images or image-text examples to train on, all stages together
    image_tokens  tokens of the language model's context that one image may take
    """

    parameters: float
    images: float
    image_tokens: int

    def __post_init__(self) -> None:
        if not self.parameters >= MIN_PARAMETERS:
            least = size_text(MIN_PARAMETERS)
            raise CourseError(f"{size_text(self.parameters)} parameters are too few; the evidence begins at {least}")
        if not self.images >= 1:
            raise CourseError(f"{self.images:g} images are too few; give at least 1")
        if self.image_tokens < MIN_IMAGE_TOKENS:
            raise CourseError(f"{self.image_tokens} tokens per image are too few; the least is {MIN_IMAGE_TOKENS}")

    @property
    def phase(self) -> str:
        """The kind of training that this many images allow, as the tables call it."""
        return "pretraining" if self.images >= PRETRAINING_IMAGES else "instruction tuning"


def size_text(number: float) -> str:
    """Return a number in the form 3B, 1.5M or 600K, with at most three digits."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


@dataclass(frozen=True)
class Encoder:
    """A published vision encoder. Sizes in parameters and pixels; `grid` is the number of patches along a side."""

    name: str
    parameters: float
    resolution: int
    grid: int


CLIP = Encoder("CLIP ViT-L/14 at 336 px", 303.5e6, 336, 24)
SIGLIP = Encoder("SigLIP-SO400M/14 at 384 px", 428.2e6, 384, 27)
FUSED = Encoder("SigLIP-SO400M/14 at 384 px and DINOv2 ViT-L/14", 428.2e6 + 304.4e6, 384, 27)


@dataclass(frozen=True)
class Recommendation:
    """The setting for one axis, why it was chosen, and the verdicts behind it."""

    axis: str
    setting: str
    reason: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Recipe:
    """One recommendation per axis, in the order of AXES.

    lm_parameters  parameters that remain for the language model
    tokens         visual tokens per image of this recipe
    """

    budget: Budget
    lm_parameters: float
    tokens: int
    recommendations: tuple[Recommendation, ...]

    def __getitem__(self, axis: str) -> Recommendation:
        return next(each for each in self.recommendations if each.axis == axis)


def pick_recipe(budget: Budget, tables: Tables | None = None) -> Recipe:
    """Return a recipe within the budget, with its evidence. Raises CourseError for malformed tables."""
    tables = tables or load_tables()

    @cache
    def judged(choice: str) -> Verdict:
        return within_budget(verdict(tables, choice), budget)

    encoder, encoder_reason = pick_encoder(budget, judged)
    plan = pick_tokens(budget, encoder, judged)
    lm_parameters = budget.parameters - encoder.parameters
    settings = {
        "encoder": (encoder.name, encoder_reason),
        "connector": (plan.connector, plan.connector_reason),
        "resolution": (plan.resolution, plan.resolution_reason),
        "language model": pick_language_model(lm_parameters, judged),
        "data": pick_data(budget, judged),
        "training": pick_training(budget, judged),
    }
    choices = choices_of(budget.phase)
    recommendations = tuple(Recommendation(axis, *settings[axis], tuple(map(judged, choices[axis]))) for axis in AXES)
    return Recipe(budget, lm_parameters, plan.tokens, recommendations)


def choices_of(phase: str) -> dict[str, tuple[str, ...]]:
    """Return the choices that a recipe shows for each axis."""
    mix = ("interleaved-data",) if phase == "pretraining" else ("more-instruction-data", "balanced-data")
    return {
        "encoder": ("contrastive-encoder", "siglip-encoder", "fused-encoders", "larger-encoder"),
        "connector": ("resampler", "more-visual-tokens", "deeper-connector", "cross-attention"),
        "resolution": ("higher-resolution", "image-crops", "keep-aspect-ratio", "keep-whole-image"),
        "language model": ("stronger-lm", "larger-lm", "instruct-lm"),
        "data": ("better-captions", "more-caption-data", "document-data", "text-only-data", *mix),
        "training": ("connector-pretraining", "train-vision-encoder", "more-epochs"),
    }


def within_budget(result: Verdict, budget: Budget) -> Verdict:
    """Lower the confidence by one level when no supporting paper is near this budget in phase and model size."""
    billions = budget.parameters / 1e9
    supporting = result.voting(result.favors)
    if result.favors == Vote.NONE or any(paper.covers(budget.phase, billions, SCALE_FACTOR) for paper in supporting):
        return result
    caution = f"no supporting paper measures {budget.phase} near {size_text(budget.parameters)} parameters"
    return replace(result, confidence=result.confidence.lowered(), caution=caution)


Judge = Callable[[str], Verdict]
"""Returns the verdict on a choice, within the budget."""


def pick_encoder(budget: Budget, judged: Judge) -> tuple[Encoder, str]:
    """Return the encoder and the reason: the favored one that takes at most MAX_ENCODER_FRACTION of the parameters."""
    most = MAX_ENCODER_FRACTION * budget.parameters
    if judged("fused-encoders").setting == "b" and FUSED.parameters <= most:
        return FUSED, "papers favor a second encoder"
    if judged("siglip-encoder").setting == "b" and SIGLIP.parameters <= most:
        return SIGLIP, "papers favor SigLIP over CLIP, and do not decide on a second encoder"
    return CLIP, f"the smallest encoder of the tables: {CLIP.parameters / budget.parameters:.0%} of the parameters"


@dataclass(frozen=True)
class TokenPlan:
    """How an image becomes visual tokens."""

    connector: str
    connector_reason: str
    resolution: str
    resolution_reason: str
    tokens: int


def pick_tokens(budget: Budget, encoder: Encoder, judged: Judge) -> TokenPlan:
    """Return connector and resolution together: the more crops of an image, the more the connector must pool.

    In order: crops with 2×2 pooling (Molmo), one image without pooling (LLaVA), crops or one image with 64 tokens each
    (Idefics2). The first that fits into the tokens per image is taken.
    """
    most, pooled, patches = budget.image_tokens, math.ceil(encoder.grid / 2) ** 2, encoder.grid**2
    with_crops = judged("image-crops").setting == "b"
    cropped = f"crops at {encoder.resolution} px and the whole image"
    if with_crops and most >= (MIN_CROPS + 1) * pooled:
        crops = min(most // pooled - 1, MAX_CROPS)
        resolution = (f"{crops} overlapping {cropped}", "papers agree that crops help, to read above all")
        return TokenPlan(
            f"2×2 patches pooled by attention, then an MLP ({pooled} tokens per crop)",
            "crops are worth more than unpooled patches",
            *resolution,
            (crops + 1) * pooled,
        )
    uncropped = f"one image at {encoder.resolution} px, resized without cropping"
    if most >= patches:
        reason = f"{MIN_CROPS} crops would need {(MIN_CROPS + 1) * pooled} tokens per image"
        return TokenPlan("two-layer MLP on every patch", "papers do not decide on pooling", uncropped, reason, patches)
    connector = (f"Perceiver resampler ({PERCEIVER_TOKENS} tokens per crop)", f"{patches} patches exceed {most} tokens")
    if with_crops and most >= (MIN_CROPS + 1) * PERCEIVER_TOKENS:
        tokens = (MIN_CROPS + 1) * PERCEIVER_TOKENS
        return TokenPlan(*connector, f"{MIN_CROPS} {cropped}", "papers agree that crops help", tokens)
    return TokenPlan(*connector, uncropped, f"crops would exceed {most} tokens per image", PERCEIVER_TOKENS)


def pick_language_model(parameters: float, judged: Judge) -> tuple[str, str]:
    """Return the language model's size and kind, and the reason."""
    kind = "instruction-tuned" if judged("instruct-lm").setting == "b" else "base"
    setting = f"{kind} model of about {parameters / 1e9:.1f}B parameters with the best text scores"
    return setting, "what the encoder leaves of the budget"


def pick_data(budget: Budget, judged: Judge) -> tuple[str, str]:
    """Return the data mix for the budget's phase, and the reason."""
    parts = ["descriptive captions" if judged("better-captions").setting == "b" else "captions"]
    if budget.phase == "pretraining":
        parts.append("interleaved documents")
    else:
        limited = judged("balanced-data").setting == "b"
        parts.append("a broad instruction mix" + limited * " with a limit per source")
    parts += ["documents and charts"] * (judged("document-data").setting == "b")
    parts += ["some text-only data"] * (judged("text-only-data").setting == "b")
    return "; ".join(parts), f"for {size_text(budget.images)} images the evidence from {budget.phase} counts"


def pick_training(budget: Budget, judged: Judge) -> tuple[str, str]:
    """Return the training stages, and the reason."""
    first, trained = judged("connector-pretraining"), judged("train-vision-encoder")
    parts = [
        "the connector alone first" if first.setting == "b" else "no stage for the connector alone",
        "train the vision encoder" if trained.setting == "b" else "freeze the vision encoder",
    ]
    if budget.phase == "instruction tuning" and judged("more-epochs").setting == "b":
        parts.append("two epochs")
    return "; ".join(parts), "papers disagree on both stages" if first.disagreement and trained.disagreement else ""
