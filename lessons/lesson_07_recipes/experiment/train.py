"""Train recipes: each for the same number of operations, from the same language model, on the same scenes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data.toybox.conversations import SceneSetting, scene_setting
from data.toybox.heldout import sample_scenes
from data.toybox.scene import Scene
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_03_blip2.model import QFormerConfig, QFormerConnector
from lessons.lesson_05_llava.model import Llava, Projector
from lessons.lesson_07_recipes.experiment.analysis import predict_best
from lessons.lesson_07_recipes.experiment.data import Lab, build_lab, encode_rows, training_turns
from lessons.lesson_07_recipes.experiment.encoders import WIDTH, load_encoder, train_encoder
from lessons.lesson_07_recipes.experiment.evaluate import answer_accuracy
from lessons.lesson_07_recipes.experiment.flops import affordable_steps, training_flops
from lessons.lesson_07_recipes.experiment.levels import ENCODER_ARMS, IMAGE_TOKENS, Levels, lab_design, recipe_name
from lessons.lesson_07_recipes.experiment.scores import run_scores
from lessons.lesson_07_recipes.model.experts import recorded_routings
from lessons.lesson_07_recipes.model.experts_balance import load_balancing_loss
from lessons.lesson_07_recipes.model.upcycling import upcycle
from shared.course.context import RunContext
from shared.finetuning import sft_loss
from shared.tokenizers.special_tokens import IMAGE_TOKEN
from shared.training import Batches, LossSum, curve_from_history, muon_config, train

EXPERTS, CHOSEN = 4, 2
BALANCE_WEIGHT = 0.01
NEW_SEED = 1_000_003
"""Added to the seed when the predicted recipe is trained: a run of the design would otherwise be repeated exactly."""


@dataclass(frozen=True)
class LabSettings:
    """The settings that all recipes share.

    runs            of the design: 8 or 16
    budget          operations that the training of each recipe takes
    encoder_budget  operations that the training of each encoder takes
    scenes          number of training scenes
    objects         least and greatest number of objects per scene
    question_types  the types of the questions; by default all that such scenes allow
    held_out        number of evaluation questions per split
    """

    runs: int
    budget: float
    encoder_budget: float
    scenes: int
    objects: Sequence[int] = (1, 1)
    question_types: Sequence[str] = ()
    held_out: int = 300
    batch_size: int = 12
    learning_rate: float = 2e-3

    @property
    def scene_setting(self) -> SceneSetting:
        """The number of objects per scene, and the types of the questions about them."""
        setting = scene_setting(self.objects)
        return replace(setting, question_types=tuple(self.question_types)) if self.question_types else setting

    def training_scenes(self, seed: int) -> list[Scene]:
        """Return the training scenes of a seed."""
        return sample_scenes("train", seed, self.scenes, self.scene_setting.objects)


class PooledProjector(nn.Module):
    """LLaVA's MLP after mean pooling of neighboring patches to a given number of image tokens.

    Raises ValueError when patches and tokens are not square grids that divide.
    """

    def __init__(self, vision_width: int, language_width: int, patches: int, tokens: int):
        super().__init__()
        side, pooled_side = round(patches**0.5), round(tokens**0.5)
        if side**2 != patches or pooled_side**2 != tokens or side % pooled_side:
            raise ValueError(f"{patches} patches do not pool to {tokens} tokens; expected square grids that divide")
        self.grid, self.pool = side, nn.AvgPool2d(side // pooled_side)
        self.mlp = Projector(vision_width, language_width)

    def forward(
        self, features: Float[Tensor, "images patches width"]
    ) -> Float[Tensor, "images image_tokens language_width"]:
        grid = features.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.mlp(self.pool(grid).flatten(2).transpose(1, 2))


def build_model(levels: Levels, patches: int) -> Llava:
    """Build the model of a recipe, for features as input: a new connector, and lesson 0's decoder, dense or upcycled.

    patches  number of patches per image
    """
    decoder, tokenizer = load_language_model()
    language_model = decoder if levels["language model"] < 0 else upcycle(decoder, EXPERTS, CHOSEN)
    width, tokens = decoder.config.width, IMAGE_TOKENS[levels["resolution"]]
    connector: nn.Module
    if levels["connector"] < 0:
        connector = PooledProjector(WIDTH, width, patches, tokens)
    else:
        connector = QFormerConnector(QFormerConfig(WIDTH, 2, WIDTH // 16, 2 * WIDTH, WIDTH), tokens, width)
    image_token_id = tokenizer.special_tokens[IMAGE_TOKEN]
    model = Llava(nn.Identity(), connector, language_model, image_token_id=image_token_id)
    return model.requires_grad_(True)


def recipe_loss(model: Llava, batch: tuple[Tensor, ...]) -> LossSum:
    """Return the cross-entropy of answers and descriptions, with the balance loss of a sparse language model."""
    features, token_ids, mask, segments = batch
    longest = int((segments >= 0).any(dim=0).sum())
    token_ids, mask, segments = token_ids[:, :longest], mask[:, :longest], segments[:, :longest]
    with recorded_routings(model) as routings:
        # Padding is at the ends, where causal attention hides it.
        loss = sft_loss(model.logits(token_ids, features), token_ids, mask)
    if not routings:
        return loss
    balance = load_balancing_loss(routings, segments >= 0)
    return loss._replace(total=loss.total + BALANCE_WEIGHT * balance * loss.terms)


def train_recipe(context: RunContext, lab: Lab, levels: Levels, settings: LabSettings, name: str) -> dict[str, Any]:
    """Train one recipe and return its accuracy per split and question type, its steps and its loss curve."""
    torch.manual_seed(context.seed)
    device, image_tokens = context.device, IMAGE_TOKENS[levels["resolution"]]
    model = build_model(levels, lab.features.shape[1]).to(device)
    turns = training_turns(lab, questions=levels["data"] > 0, seed=context.seed)
    rows = encode_rows(lab.tokenizer, lab.features, turns, image_tokens)
    batches = Batches(
        *(rows.features, rows.token_ids, rows.answer_mask, rows.segments),
        batch_size=settings.batch_size,
        seed=context.seed,
    )
    first = tuple(tensor.to(device) for tensor in batches(0))
    steps = affordable_steps(settings.budget, training_flops(lambda: recipe_loss(model, first)))
    result = train(
        model,
        batches,
        recipe_loss,
        muon_config(steps, settings.learning_rate, seed=context.seed, checkpoint_every=max(100, steps // 2)),
        run=context.subfolder(name).run_options(label=f"{context.folder.name}, {name}"),
    )
    measured: dict[str, Any] = {"steps": steps, "curve": curve_from_history(result.history, "loss")}
    for split, questions in lab.sets.items():
        accuracies = answer_accuracy(model, lab.tokenizer, questions, image_tokens, device)
        measured |= {split if each == "all" else f"{split}_{each}": value for each, value in accuracies.items()}
    return measured


def train_runs(context: RunContext, *, encoder: int, **values: Any) -> dict[str, Any]:
    """Train one level of the encoder, then every run of the design that has it.

    encoder  the level: −1 or +1
    values   fields of `LabSettings`

    Returns `run_<number>_<name>` for each measurement of each run. The context's data set is ignored: the language
    model was trained on the toy world.
    """
    settings, (_, tokenizer) = LabSettings(**values), load_language_model()
    scenes = settings.training_scenes(context.seed)
    vision_encoder, measured = train_encoder(
        context, scenes, tokenizer, captioning=encoder > 0, budget=settings.encoder_budget
    )
    options = {"setting": settings.scene_setting, "held_out": settings.held_out, "device": context.device}
    lab = build_lab(vision_encoder, tokenizer, scenes, **options)
    for number, levels in enumerate(lab_design(settings.runs).recipes()):
        if levels["encoder"] == encoder:
            run = train_recipe(context, lab, levels, settings, f"run-{number}")
            measured |= {f"run_{number}_{name}": value for name, value in run.items()}
    return measured | {"runs": settings.runs}


def train_predicted(context: RunContext, **values: Any) -> dict[str, Any]:
    """Train the recipe that the main effects on validation scenes predict to be the best, with a new seed.

    values  fields of `LabSettings`, those of the runs
    """
    settings, (_, tokenizer) = LabSettings(**values), load_language_model()
    design = lab_design(settings.runs)
    scores = run_scores({name: context.measurements_of(name) for name in ENCODER_ARMS.values()}, "seen")
    prediction = predict_best(design, scores[:, None])
    levels = {factor: level or -1 for factor, level in prediction.levels.items()}
    folder = context.folder_of(ENCODER_ARMS[levels["encoder"]])
    vision_encoder = load_encoder(folder, context.device)
    context = replace(context, seed=context.seed + NEW_SEED)
    scenes = settings.training_scenes(context.seed)
    options = {"setting": settings.scene_setting, "held_out": settings.held_out, "device": context.device}
    lab = build_lab(vision_encoder, tokenizer, scenes, **options)
    measured = train_recipe(context, lab, levels, settings, "predicted")
    return measured | {
        "predicted": prediction.score,
        "recipe": recipe_name(levels),
        "levels": list(levels.values()),
        "in_design": float(levels in design.recipes()),
        "best_run": float(scores.max()),
        "mean_run": float(scores.mean()),
        "chance": lab.sets["seen"].chance,
    }
