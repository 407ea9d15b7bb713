"""The arms with several numbers of pairs: one first stage, or none, then a second stage per number of pairs."""

from collections.abc import Sequence
from typing import Any

import torch

from lessons.lesson_03_blip2.experiment.data import (
    EncodedScenes,
    ImageTextPairs,
    concatenate,
    full_captions,
    short_captions,
)
from lessons.lesson_03_blip2.experiment.train import (
    ConnectorRecipe,
    FrozenModels,
    evaluate_recipe,
    load_frozen_models,
    train_first_stage,
    train_second_stage,
    training_questions,
    training_scenes,
)
from lessons.lesson_03_blip2.model import Blip2, QFormerConnector
from shared.course.context import RunContext

ACCURACIES = ("answers", "captions", "seen_answers", "seen_captions")


def train_pair_counts(context: RunContext, *, pair_counts: Sequence[int], **settings: Any) -> dict[str, Any]:
    """Train the second stage on several numbers of pairs, each from the end of the same first stage or from none.

    pair_counts  numbers of image–text pairs in the second stage, ascending: half captions, half questions with answers
    settings     fields of `ConnectorRecipe`; the first stage always trains on all `scenes` captions

    The second stage has the same number of steps for each number of pairs. Returns four accuracies per number of
    pairs, and each as a curve over these numbers. The data set of the context is not used.
    """
    recipe = ConnectorRecipe(**settings)
    torch.manual_seed(context.seed)
    frozen = load_frozen_models(recipe)
    encoded, questions = training_scenes(recipe, frozen, context), training_questions(recipe, frozen, context)
    retriever = None
    if recipe.first_stage_steps:
        captions = full_captions(encoded, frozen.tokenizer)
        retriever, _ = train_first_stage(context, recipe, frozen, captions)
    measured: dict[str, Any] = {}
    for count in pair_counts:
        torch.manual_seed(context.seed)
        connector = frozen.new_connector(recipe)
        if retriever is not None and isinstance(connector, QFormerConnector):
            connector.load_first_stage(retriever)
        model = Blip2(frozen.vision_encoder, connector, frozen.language_model).to(context.device)
        pairs = second_stage_pairs(encoded, questions, frozen, count)
        train_second_stage(context.subfolder(f"{count}-pairs"), recipe, model, pairs)
        accuracies = evaluate_recipe(model, recipe, frozen, context.device)
        measured |= {f"{name}_{count}": accuracies[name] for name in ACCURACIES}
    curves = {
        f"{name}_curve": [list(pair_counts), [measured[f"{name}_{count}"] for count in pair_counts]]
        for name in ACCURACIES
    }
    return measured | curves


def second_stage_pairs(
    encoded: EncodedScenes, questions: ImageTextPairs, frozen: FrozenModels, count: int
) -> ImageTextPairs:
    """Return the first `count` pairs: half short captions, half questions. Raises ValueError when there are fewer."""
    half = count // 2
    if not 1 <= half <= min(len(encoded.scenes), len(questions.texts)):
        raise ValueError(f"{count} pairs of {len(encoded.scenes)} captions and {len(questions.texts)} questions")
    captions = short_captions(EncodedScenes(encoded.scenes[:half], encoded.image_features[:half]), frozen.tokenizer)
    return concatenate(captions, questions.first(half))
