"""The arms of the corpora: one model per order of text alone and images, at equal tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch.nn.functional import cross_entropy

from data.toybox.conversations import scene_setting
from lessons.lesson_10_internvl.experiment.base_model import starting_model
from lessons.lesson_10_internvl.experiment.data import (
    MULTIMODAL,
    TEXT,
    Document,
    DocumentBatch,
    DocumentBatches,
    Order,
    image_corpus,
    stages_of,
    text_corpus,
)
from lessons.lesson_10_internvl.experiment.evaluate import batch_logits, image_scores, text_scores
from lessons.lesson_10_internvl.model import InternVL, averaged_loss
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.training import LossSum, curve_from_history, muon_config, train


@dataclass(frozen=True)
class Recipe:
    """The settings of one arm.

    order          of the two corpora
    tokens         of all training documents together, visual tokens included
    images         most images in the corpus
    texts          most documents of text alone in the corpus
    objects        least and greatest number of objects per image
    batch_size     documents per step
    learning_rate  of Muon
    """

    order: Order = "mixed"
    tokens: int = 200_000
    images: int = 4000
    texts: int = 2000
    objects: Sequence[int] = (1, 1)
    batch_size: int = 8
    learning_rate: float = 4e-3
    precision: str = "float32"


def document_loss(model: InternVL, batch: DocumentBatch) -> LossSum:
    """Return the cross-entropy of the tokens in the loss, weighted by square averaging."""
    logits = batch_logits(model, DocumentBatch(*batch))
    losses = cross_entropy(logits[:, :-1].float().transpose(1, 2), batch[1][:, 1:], reduction="none")
    return averaged_loss(losses, batch[2][:, 1:], batch[3][:, 1:])


def train_corpora(
    context: RunContext, *, held_out: int = 480, documents: int = 300, episodes: int = 150, **recipe_values
) -> dict:
    """Train a model on both corpora in the recipe's order; measure answers, text and few-shot skill.

    held_out       test questions; validation questions are half as many
    documents      test documents of text alone; validation documents are half as many
    episodes       episodes per type; in validation half as many
    recipe_values  fields of `Recipe`

    Names begin with "validation_" for validation and with "before_" for the model before training; without one they are
    measured on test. The context's data set is ignored: all parts were trained on the toy world.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    model, tokenizer = starting_model(context.device)
    setting = scene_setting(recipe.objects)
    before = text_scores(model, tokenizer, "test", documents, episodes)
    measured: dict = {f"before_{name}": value for name, value in before.items()}
    measured |= train_stages(model, tokenizer, recipe, context)
    for split, prefix, share in (("test", "", 1), ("validation", "validation_", 2)):
        scores = image_scores(model, tokenizer, split, held_out // share, setting)
        scores |= text_scores(model, tokenizer, split, documents // share, episodes // share)
        measured |= {f"{prefix}{name}": value for name, value in scores.items()}
    return measured | {"recipe": asdict(recipe)}


def train_stages(model: InternVL, tokenizer: Tokenizer, recipe: Recipe, context: RunContext) -> dict:
    """Train all stages of a recipe, each with a learning rate schedule of its own; return tokens, steps and losses."""
    corpora = {TEXT: text_corpus(tokenizer, "train", context.seed, recipe.texts)}
    corpora[MULTIMODAL] = image_corpus(tokenizer, context.seed, recipe.images, recipe.objects, context.device)
    stages = stages_of(corpora, recipe.order, recipe.tokens, context.seed)
    curves = [train_stage(model, documents, recipe, context, number) for number, documents in enumerate(stages)]
    everything = [document for documents in stages for document in documents]
    text = sum(len(document.token_ids) for document in everything if document.features is None)
    return {
        "tokens": sum(len(document.token_ids) for document in everything),
        "text_tokens": text,
        "loss_curves": curves,
    }


def train_stage(
    model: InternVL, documents: Sequence[Document], recipe: Recipe, context: RunContext, number: int
) -> list:
    """Train one stage and return its loss curve: steps and mean losses."""
    batches = DocumentBatches(documents, recipe.batch_size)
    steps = len(batches)
    config = muon_config(
        steps,
        recipe.learning_rate,
        seed=context.seed,
        checkpoint_every=max(100, steps // 4),
        precision=recipe.precision,
    )
    folder = context.subfolder(f"stage-{number}")
    run = folder.run_options(label=f"{context.folder.name}, stage {number}")
    return curve_from_history(train(model, batches, document_loss, config, run=run).history, "loss")
