"""Train a decoder on documents of text and codes; one arm trains all tasks together, others one task each."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon.experiment.data import Mixture, chance, training_documents
from lessons.lesson_11_chameleon.experiment.evaluate import measure_drawings, measure_losses, measure_texts
from lessons.lesson_11_chameleon.model import Z_WEIGHT, BlockDesign, mixed_modal_loss
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer
from lessons.lesson_11_chameleon.model.toy_chameleon import ToyChameleon, load_chameleon, load_image_tokenizer
from shared.course.context import RunContext
from shared.training import Batches, LossSum, RunOptions, curve_from_history, muon_config, train

HELD_OUT_SEEDS = 10
"""Distance between the seeds of the held-out scenes of two runs."""
JOINT = {"draw": 0.5, "caption": 0.2, "answer": 0.3}
"""Fraction of the documents per task, for the model that learns all of them."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run of a decoder, which starts from random weights.

    documents      most different documents
    mixture        fraction of them per task
    learning_rate  of Muon
    z_weight       weight of the z-loss; 0 leaves it out
    qk_norm        and `norms_after` are those of `BlockDesign`
    sizes          of the decoder, by name as in `toy_config`
    """

    steps: int = 5000
    documents: int = 80_000
    mixture: Mixture = field(default_factory=lambda: dict(JOINT))
    batch_size: int = 32
    learning_rate: float = 5e-3
    z_weight: float = Z_WEIGHT
    qk_norm: bool = True
    norms_after: bool = False
    sizes: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    seed: int = 0

    @property
    def design(self) -> BlockDesign:
        """The blocks of the decoder."""
        return BlockDesign(qk_norm=self.qk_norm, norms_after=self.norms_after)


class DocumentLoss:
    """Compute the loss of a batch of documents, and its two parts."""

    def __init__(self, z_weight: float):
        self.z_weight = z_weight

    def __call__(self, decoder: nn.Module, batch: tuple[Tensor, ...]) -> tuple[LossSum, dict[str, LossSum]]:
        token_ids, segments, loss_mask = batch
        # Padding is at the ends, where causal attention hides it.
        return mixed_modal_loss(decoder(token_ids), token_ids, segments, loss_mask=loss_mask, z_weight=self.z_weight)


def train_decoder(
    image_tokenizer: ImageTokenizer, recipe: Recipe, run: RunOptions
) -> tuple[ToyChameleon, dict[str, Any]]:
    """Train a decoder from random weights; return the model in evaluation mode and the curve of its cross-entropy."""
    torch.manual_seed(recipe.seed)
    model = ToyChameleon.build(load_language_model()[1], image_tokenizer, recipe.design, **recipe.sizes)
    documents = training_documents(model, recipe.seed, recipe.documents, recipe.mixture)
    config = muon_config(
        recipe.steps,
        recipe.learning_rate,
        seed=recipe.seed,
        checkpoint_every=max(100, recipe.steps // 8),
        precision=recipe.precision,
    )
    batches = Batches(*documents, batch_size=recipe.batch_size, seed=recipe.seed)
    result = train(model.decoder, batches, DocumentLoss(recipe.z_weight), config, run=run)
    model.decoder.load_state_dict(result.model.state_dict())
    model.decoder.eval()
    return model, {
        "loss_curve": curve_from_history(result.history, "cross_entropy"),
        "seconds": result.history[-1]["seconds"],
    }


def measure_shipped(context: RunContext, *, held_out: int = 240, shipped: bool = True) -> dict[str, Any]:
    """Measure the shipped decoder and image tokenizer: drawings, captions and answers.

    held_out  test scenes; validation scenes are half as many
    shipped   False measures an untrained decoder in its place

    Names begin with "validation_" for validation. Sampled codes depend on the seed; the context's data set is ignored.
    """
    model = load_chameleon()
    if not shipped:
        model = ToyChameleon.build(model.tokenizer, model.image_tokenizer, model.design)
    measured: dict[str, Any] = {"parameters": count_parameters(model.decoder), "chance": chance()}
    for split, prefix, count in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        seed = TEST_SEED + HELD_OUT_SEEDS * context.seed
        scores = measure_drawings(model, split, seed, count).scores | measure_texts(model, split, seed, count)
        measured |= {f"{prefix}{name}": value for name, value in scores.items()}
    return measured


def train_tasks(context: RunContext, *, held_out: int = 300, **recipe_values: Any) -> dict[str, Any]:
    """Train a decoder on the tasks of its mixture, from the shipped image tokenizer; measure its losses.

    held_out       test scenes; validation scenes are half as many
    recipe_values  fields of `Recipe` without the seed

    Names begin with "validation_" for validation. The context's data set is ignored.
    """
    recipe = Recipe(seed=context.seed, **recipe_values)
    model, curve = train_decoder(load_image_tokenizer(), recipe, context.run_options())
    measured = curve | {"recipe": asdict(recipe), "parameters": count_parameters(model.decoder)}
    for split, prefix, count in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        losses = measure_losses(model, split, TEST_SEED, count)
        measured |= {f"{prefix}{name}": value for name, value in losses.items()}
    return measured


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
