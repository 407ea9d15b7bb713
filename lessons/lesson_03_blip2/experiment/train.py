"""The training arm: a connector in two stages, between a frozen vision encoder and a frozen language model."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from data.toybox.heldout import TEST_SEED, sample_scenes
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from lessons.lesson_03_blip2.experiment.data import (
    EncodedScenes,
    ImageTextPairs,
    UniqueCaptionBatches,
    concatenate,
    encode_scenes,
    full_captions,
    questions_and_answers,
    short_captions,
)
from lessons.lesson_03_blip2.experiment.evaluate import HELD_OUT, OBJECTS, QUESTION_OBJECTS, evaluate, retrieval_recall
from lessons.lesson_03_blip2.model import (
    Blip2,
    FirstStage,
    QFormerConfig,
    QFormerConnector,
    Retriever,
    RetrieverConfig,
    build_connector,
    first_stage,
    second_stage,
)
from lessons.lesson_03_blip2.model.connectors import Connector
from shared.course.context import RunContext
from shared.finetuning import sft_loss
from shared.pretrained.digest import weights_digest
from shared.tokenizers import Tokenizer
from shared.training import Batches, LossSum, curve_from_history, muon_config, train

DECODE_TOKEN = "<|turn|>"
"""A special token that lesson 0's decoder was not trained on; in the first stage it marks a text to generate."""


@dataclass(frozen=True)
class ConnectorRecipe:
    """Set the data, the sizes and the training of a connector.

    steps                      training steps of the second stage
    first_stage_steps          training steps of the first stage; 0 leaves it out
    scenes                     number of captioned training scenes, and of training questions
    objects, question_objects  smallest and largest number of objects in a captioned scene, and in a scene of a question
    queries, width, depth      sizes of the Q-Former
    held_out                   number of test scenes, and of test questions
    """

    steps: int
    first_stage_steps: int = 0
    connector: Literal["qformer", "linear", "mean"] = "qformer"
    scenes: int = 4000
    objects: tuple[int, int] = OBJECTS
    question_objects: tuple[int, int] = QUESTION_OBJECTS
    queries: int = 8
    width: int = 64
    depth: int = 2
    batch_size: int = 32
    first_stage_learning_rate: float = 4e-3
    learning_rate: float = 5e-3
    held_out: int = HELD_OUT


@dataclass(frozen=True)
class FrozenModels:
    """Hold both frozen models, the tokenizer and the sizes of a Q-Former that fits them."""

    vision_encoder: VisionTransformer
    language_model: LanguageModel
    tokenizer: Tokenizer
    config: QFormerConfig

    def new_connector(self, recipe: ConnectorRecipe) -> Connector:
        """Return a connector with random weights."""
        return build_connector(recipe.connector, self.config, recipe.queries, self.language_model.config.width)


def load_frozen_models(recipe: ConnectorRecipe) -> FrozenModels:
    """Load lesson 2's vision encoder and lesson 0's language model."""
    vision_encoder = load_vision_encoder()
    language_model, tokenizer = load_language_model()
    width = recipe.width
    config = QFormerConfig(width, recipe.depth, max(1, width // 16), 2 * width, vision_encoder.config.width)
    return FrozenModels(vision_encoder, language_model, tokenizer, config)


def training_scenes(recipe: ConnectorRecipe, frozen: FrozenModels, context: RunContext) -> EncodedScenes:
    """Return the captioned training scenes with their image features."""
    scenes = sample_scenes("train", context.seed, recipe.scenes, tuple(recipe.objects))
    return encode_scenes(frozen.vision_encoder, scenes, context.device)


def training_questions(recipe: ConnectorRecipe, frozen: FrozenModels, context: RunContext) -> ImageTextPairs:
    """Return as many training questions, each about a scene of its own."""
    objects = tuple(recipe.question_objects)  # a list when it was read from JSON
    return questions_and_answers(
        frozen.vision_encoder, frozen.tokenizer, "train", context.seed, recipe.scenes, objects, context.device
    )


def train_connector(context: RunContext, **settings: Any) -> dict[str, Any]:
    """Train a connector between the frozen models and measure it; `settings` are those of `ConnectorRecipe`.

    The data set of the context is not used: both frozen models were trained on the toy world.
    """
    recipe, device = ConnectorRecipe(**settings), context.device
    torch.manual_seed(context.seed)
    frozen = load_frozen_models(recipe)
    digests = weights_digest(frozen.vision_encoder), weights_digest(frozen.language_model)
    encoded, questions = training_scenes(recipe, frozen, context), training_questions(recipe, frozen, context)
    connector = frozen.new_connector(recipe)
    measured: dict[str, Any] = {}
    if recipe.first_stage_steps and isinstance(connector, QFormerConnector):
        captions = full_captions(encoded, frozen.tokenizer)
        retriever, measured["first_loss_curve"] = train_first_stage(context, recipe, frozen, captions)
        connector.load_first_stage(retriever)
        test_scenes = sample_scenes("test", TEST_SEED, recipe.held_out, tuple(recipe.objects))
        test_captions = full_captions(encode_scenes(frozen.vision_encoder, test_scenes, device), frozen.tokenizer)
        measured |= retrieval_recall(retriever, test_captions, device)
    model = Blip2(frozen.vision_encoder, connector, frozen.language_model).to(device)
    pairs = concatenate(short_captions(encoded, frozen.tokenizer), questions)
    measured["loss_curve"] = train_second_stage(context, recipe, model, pairs)
    return measured | {
        **evaluate_recipe(model, recipe, frozen, device),
        "frozen_changed": float(
            (weights_digest(frozen.vision_encoder), weights_digest(frozen.language_model)) != digests
        ),
        "image_tokens": connector(encoded.image_features[:1].to(device)).shape[1],
        "parameters": sum(parameter.numel() for parameter in connector.parameters()),
    }


def evaluate_recipe(model: Blip2, recipe: ConnectorRecipe, frozen: FrozenModels, device: str) -> dict[str, Any]:
    """Return the accuracies of captions and answers on both splits, with the recipe's scenes."""
    objects, question_objects = tuple(recipe.objects), tuple(recipe.question_objects)
    return evaluate(model.eval(), frozen.tokenizer, recipe.held_out, objects, question_objects, device)


def train_first_stage(
    context: RunContext, recipe: ConnectorRecipe, frozen: FrozenModels, captions: ImageTextPairs
) -> tuple[Retriever, list[Any]]:
    """Train contrast, matching and generation on captions; return the retrieval model and its loss curve."""
    tokenizer = frozen.tokenizer
    retriever_config = RetrieverConfig(
        replace(frozen.config, text_input=True), recipe.queries, tokenizer.vocab_size, 64, projection_dim=32
    )
    model = FirstStage(
        Retriever(retriever_config, frozen.vision_encoder),
        tokenizer.special_tokens[DECODE_TOKEN],
        # Every token but the first of a caption is predicted.
        tokens_per_caption=(captions.segments[:, 1:] >= 0).sum().item() / len(captions.segments),
    )
    steps = recipe.first_stage_steps
    result = train(
        model,
        UniqueCaptionBatches(captions, recipe.batch_size, context.seed),
        lambda model, batch: model(*batch),
        muon_config(steps, recipe.first_stage_learning_rate, seed=context.seed),
        run=context.subfolder("stage-1").run_options(label=f"{context.folder.name}, stage 1"),
        stages=first_stage(steps),
    )
    return model.retriever.eval(), curve_from_history(result.history, "loss")


def train_second_stage(context: RunContext, recipe: ConnectorRecipe, model: Blip2, pairs: ImageTextPairs) -> list[Any]:
    """Train the connector on the language model's cross-entropy of captions and answers; return the loss curve."""

    def loss(model: Blip2, batch: tuple[Tensor, ...]) -> LossSum:
        image_features, token_ids, segments, loss_mask = batch
        return sft_loss(model.logits(image_features, token_ids, segments), token_ids, loss_mask)

    batches = Batches(
        pairs.image_features,
        pairs.token_ids,
        pairs.segments,
        pairs.loss_mask(),
        batch_size=recipe.batch_size,
        seed=context.seed,
    )
    result = train(
        model,
        batches,
        loss,
        # With AdamW the frozen language model still ignores the image after some hundred steps, and every image gets
        # the same caption. Muon avoids this.
        muon_config(recipe.steps, recipe.learning_rate, seed=context.seed),
        run=context.subfolder("stage-2").run_options(label=f"{context.folder.name}, stage 2"),
        stages=second_stage(recipe.steps),
    )
    return curve_from_history(result.history, "loss")
