"""The arms that are trained: lesson 5's assistant becomes a LLaVA-OneVision, a specialist, or a blind baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from data.toybox.heldout import TEST_SEED
from lessons.lesson_05_llava.model import Llava
from lessons.lesson_08_onevision.experiment.data import (
    LAYOUT,
    DataSource,
    Rows,
    encoded_visuals,
    training_rows,
)
from lessons.lesson_08_onevision.experiment.evaluate import accuracies, answer_accuracy
from lessons.lesson_08_onevision.model import CurriculumStage, LlavaOneVision, PlaceholderIds, PlannedStage
from lessons.lesson_08_onevision.model.curriculum import IMAGE, INPUT_TYPES, mixture_schedule
from shared.course.checkpoint import checkpoint_folder
from shared.course.context import RunContext
from shared.finetuning import sft_loss
from shared.pretrained.digest import weights_digest
from shared.tokenizers import ChatTemplate, load_tokenizer
from shared.tokenizers.special_tokens import IMAGE_TOKEN
from shared.training import Batches, LossSum, curve_from_history, muon_config, train

START = "lesson_05_llava"
"""The shipped assistant that every arm starts from: vision encoder, projector and language model."""
TRAINED = ("projector", "newline", "language")
FIRST_STORY = 2**20
"""Distance between the numbers of the stories of two stages or types of input."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one arm.

    first          relative numbers of examples per type of input in the first stage
    mix            the same in the last stage
    first_steps    steps of the first stage
    mix_steps      steps of the last stage
    objects        least and greatest number of objects per story
    stories        most stories per stage and type of input
    turns          most questions per story in training
    batch_size     stories per step
    learning_rate  of Muon
    use_visuals    False for the blind baseline
    one_frame      True for the control, which gets the middle frame where others get several images or a video
    """

    first: Mapping[str, int] = field(default_factory=lambda: {IMAGE: 1})
    mix: Mapping[str, int] = field(default_factory=lambda: {IMAGE: 1, "images": 1, "video": 1})
    first_steps: int = 40
    mix_steps: int = 160
    objects: Sequence[int] = (1, 1)
    stories: int = 2000
    turns: int = 2
    batch_size: int = 8
    learning_rate: float = 1.5e-3
    use_visuals: bool = True
    one_frame: bool = False


class MixedBatches:
    """Batches of several types of input: `batches(step)` is a batch of the type that the plan has at this step."""

    def __init__(self, sets: Mapping[str, list[Rows]], planned: PlannedStage, recipe: Recipe, seed: int):
        self.inputs = planned.inputs
        self.batches = {
            kind: [Batches(*rows, batch_size=recipe.batch_size, seed=seed) for rows in of_kind]
            for kind, of_kind in sets.items()
        }

    def __call__(self, step: int) -> Rows:
        kind = self.inputs[step]
        earlier = self.inputs[:step].count(kind)
        index, which = divmod(earlier, len(self.batches[kind]))
        return Rows(*self.batches[kind][which](index))


def train_onevision(context: RunContext, *, held_out: int = 400, **recipe_values) -> dict:
    """Train both stages and measure the accuracy on all types of input, and on single images between the stages.

    held_out       test questions per type of input; validation questions are a quarter as many
    recipe_values  fields of `Recipe`

    The context's data set is ignored: all parts were trained on the toy world.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    model, template = starting_model(context.device)
    digest = weights_digest(model.vision_encoder)
    least, greatest = recipe.objects
    source = DataSource(model, template, (least, greatest), recipe.use_visuals, context.device)
    measured: dict = {"recipe": asdict(recipe)}
    for number, (name, samples) in enumerate((("first", recipe.first), ("mix", recipe.mix))):
        steps = recipe.first_steps if name == "first" else recipe.mix_steps
        if steps:
            planned = plan_stage(name, samples, steps)
            measured[f"{name}_loss_curve"] = train_stage(source, planned, recipe, context, number)
        if name == "first":
            before = answer_accuracy(source, IMAGE, "test", TEST_SEED, held_out)
            measured["before_image_all"] = before["all"]
    measured |= accuracies(source, "test", TEST_SEED, held_out)
    validation = accuracies(source, "validation", TEST_SEED, held_out // 4)
    measured |= {f"validation_{name}": value for name, value in validation.items()}
    return measured | {"frozen_changed": float(weights_digest(model.vision_encoder) != digest)}


def starting_model(device: str) -> tuple[LlavaOneVision, ChatTemplate]:
    """Return a OneVision model with the shipped assistant's weights and a new newline, and the chat template."""
    folder = checkpoint_folder(START)
    assistant, tokenizer = Llava.from_pretrained(folder), load_tokenizer(folder / "tokenizer.json")
    image = tokenizer.special_tokens[IMAGE_TOKEN]
    model = LlavaOneVision(
        assistant.vision_encoder.requires_grad_(False),
        assistant.projector,
        assistant.language_model,
        layout=LAYOUT,
        placeholders=PlaceholderIds(image, image),
        feature_layers=assistant.feature_layers,
    )
    return model.to(device), ChatTemplate(tokenizer)


def plan_stage(name: str, samples: Mapping[str, int], steps: int) -> PlannedStage:
    """Return a stage with the type of input of every step, in the proportions of `samples`."""
    stage = CurriculumStage(name, samples, TRAINED)
    kinds = [kind for kind in INPUT_TYPES if samples.get(kind)]
    weights = torch.tensor([stage.weights[kind] for kind in kinds], dtype=torch.float64)
    order = mixture_schedule(weights, steps).tolist()
    return PlannedStage(stage, steps, tuple(kinds[index] for index in order))


def train_stage(
    source: DataSource, planned: PlannedStage, recipe: Recipe, context: RunContext, number: int
) -> list[list[float]]:
    """Train one stage and return its loss curve: steps and mean losses."""
    model, sets = source.model, {}
    counts = (1,) if recipe.one_frame else None
    for kind in dict.fromkeys(planned.inputs):
        count = min(recipe.stories, planned.inputs.count(kind) * recipe.batch_size)
        first = (len(INPUT_TYPES) * number + INPUT_TYPES.index(kind)) * FIRST_STORY
        sets[kind] = training_rows(source, kind, context.seed, range(first, first + count), recipe.turns, counts)
    result = train(
        model,
        MixedBatches(sets, planned, recipe, context.seed),
        story_loss,
        muon_config(
            planned.steps,
            recipe.learning_rate,
            seed=context.seed,
            schedule="constant" if planned.stage.name == "first" else "wsd",
            checkpoint_every=max(100, planned.steps // 4),
        ),
        run=context.subfolder(planned.stage.name).run_options(label=f"{context.folder.name}, {planned.stage.name}"),
        stages=(planned.training_stage(model),),
    )
    return curve_from_history(result.history, "loss")


def story_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> LossSum:
    """Return the cross-entropy of the answers' tokens; the padding at the ends of the rows is not in the loss."""
    rows = Rows(*batch)
    return sft_loss(model.logits(rows.token_ids, encoded_visuals(rows.features)), rows.token_ids, rows.loss_mask)
