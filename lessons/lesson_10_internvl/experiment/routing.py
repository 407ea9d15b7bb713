"""ViR at our scale: consistency training, a router trained by its loss ratio, and accuracy by tokens saved.

The arm continues the model that was trained on the mixture. Every image is one tile: 16 visual tokens, or 4 where it is
compressed. Half of the images are empty, so that some images need their tokens and others do not.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data.toybox.conversations import scene_setting
from data.toybox.heldout import SEEN_PAIRS, SPLITS, TEST_SEED
from data.toybox.language import Description, phrase
from data.toybox.questions import TEMPLATES
from data.toybox.scene import BACKGROUNDS, Scene, pick, stream
from lessons.lesson_05_llava.model import encode_interview
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, device_of, encode_scenes, starting_model
from lessons.lesson_10_internvl.experiment.data import (
    Document,
    DocumentBatch,
    collate,
    evaluation_images,
    image_corpus,
)
from lessons.lesson_10_internvl.experiment.evaluate import BATCH, batch_logits, exact_rows, to_device
from lessons.lesson_10_internvl.model import InternVL
from lessons.lesson_10_internvl.model.router import RatioThreshold, consistency_losses, router_loss, router_targets
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.training import LossSum, Stage, curve_from_history, load_weights, muon_config, train

START = "mixed"
"""The arm whose model is the start, and the frozen model of the consistency loss."""
FIRST_SEED = 500
"""Added to the seed for the scenes, so that they are other ones than those of the arm `START`."""
PURPOSE = 245
"""The first purpose of `stream` for questions about empty images; each split has its own."""
COARSE_TOKENS = IMAGE_TOKENS // 4
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Fractions of images that are compressed, for the curve."""


@dataclass(frozen=True)
class Recipe:
    """The settings of the arm.

    consistency_steps  of training with each image at a random resolution
    router_steps       of training the router
    images             most training images, empty ones included
    objects            least and greatest number of objects per image that is not empty
    """

    consistency_steps: int = 60
    router_steps: int = 60
    images: int = 4000
    objects: Sequence[int] = (1, 1)
    batch_size: int = 8
    learning_rate: float = 4e-3
    router_rate: float = 5e-3


def with_empty_images(
    tokenizer: Tokenizer, documents: Sequence[Document], split: str, seed: int, device: str
) -> list[Document]:
    """Return the documents, each followed by one about an empty image: "is there a red star? no"."""
    grids = encode_scenes([Scene((), background) for background in range(BACKGROUNDS)], device)
    mixed = []
    for number, document in enumerate(documents):
        rng = stream(seed, number, PURPOSE + SPLITS.index(split))
        color, shape = pick(rng, SEEN_PAIRS)
        question = TEMPLATES["existence"].format(scene_object=phrase(Description(color=color, shape=shape)))
        encoded = encode_interview(tokenizer, [(question, "no")], image_token_counts=[IMAGE_TOKENS])
        grid = grids[int(rng.random() * BACKGROUNDS)]
        mixed += [document, Document(encoded.token_ids, encoded.loss_mask, grid)]
    return mixed


def compress(document: Document, image_token_id: int) -> Document:
    """Return a document with as few image tokens as a compressed image has."""
    first = document.token_ids.index(image_token_id)
    chosen = [*range(first + COARSE_TOKENS), *range(first + IMAGE_TOKENS, len(document.token_ids))]
    token_ids, loss_mask = ([values[place] for place in chosen] for values in (document.token_ids, document.loss_mask))
    return Document(token_ids, loss_mask, document.features)


def at_resolution(documents: Sequence[Document], full: Bool[Tensor, "images"], image_token_id: int) -> DocumentBatch:
    """Return documents as a batch, with all visual tokens or a quarter of them for each image."""
    pairs = zip(documents, full.tolist(), strict=True)
    return collate([document if is_full else compress(document, image_token_id) for document, is_full in pairs])


class PairedBatches:
    """Batches of documents at full and at low resolution, one after the other; a pure function of the index.

    Each item is the tensors of both batches, and which images are at full resolution in a random mixture of both.
    """

    def __init__(self, documents: Sequence[Document], batch_size: int, image_token_id: int, seed: int):
        self.documents, self.batch_size, self.image, self.seed = documents, batch_size, image_token_id, seed

    def __call__(self, index: int) -> tuple[DocumentBatch, DocumentBatch, Bool[Tensor, "rows"]]:
        count = len(self.documents) // self.batch_size
        first = index % count * self.batch_size
        rows = self.documents[first : first + self.batch_size]
        everything = torch.ones(len(rows), dtype=torch.bool)
        generator = torch.Generator().manual_seed(self.seed * 10**6 + index)
        full = torch.rand(len(rows), generator=generator) < 0.5
        return collate(rows), at_resolution(rows, ~everything, self.image), full


def answer_logits(
    logits: Float[Tensor, "rows tokens vocab"], batch: DocumentBatch, answers: int
) -> tuple[Float[Tensor, "rows answers vocab"], Bool[Tensor, "rows answers"]]:
    """Return each row's logits that predict tokens of answers, moved to the front, and which entries are such."""
    predicts = batch.loss_mask[:, 1:]
    counts = predicts.sum(dim=1)
    moved = logits.new_zeros(len(logits), answers, logits.shape[-1])
    valid = torch.arange(answers, device=logits.device) < counts[:, None]
    return moved.masked_scatter(valid[..., None], logits[:, :-1][predicts]), valid


def consistency(
    model: InternVL, frozen: InternVL, full: DocumentBatch, other: DocumentBatch, is_full: Bool[Tensor, "rows"]
) -> Float[Tensor, "rows"]:
    """Return each row's KL divergence from the frozen model at full resolution.

    other  the documents at the resolutions `is_full`
    """
    answers = int(full.loss_mask.sum(dim=1).max())
    with torch.no_grad():
        expected, valid = answer_logits(batch_logits(frozen, full), full, answers)
    logits, _ = answer_logits(batch_logits(model, other, is_full), other, answers)
    return consistency_losses(logits, expected, valid)


def train_router(context: RunContext, *, held_out: int = 480, percentile: float = 50.0, **recipe_values) -> dict:
    """Train the arm `START` at random resolutions, then a router; measure accuracy by tokens.

    percentile     of the loss ratios that is the threshold of the router's targets
    held_out       test questions; validation questions are half as many
    recipe_values  fields of `Recipe`

    `routed_<percent>` is the accuracy when the images with the lowest scores are compressed, so many percent of them,
    `random_<percent>` with as many random ones, and `routed` with the router's own decisions. The context's data set is
    ignored.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    model, tokenizer = starting_model(context.device, router=True)
    base, _ = starting_model(context.device)
    model.load_state_dict(load_weights(base, context.folder_of(START) / "stage-0").state_dict(), strict=False)
    count = min((recipe.consistency_steps + recipe.router_steps) * recipe.batch_size, recipe.images)
    objects = image_corpus(tokenizer, FIRST_SEED + context.seed, count // 2, recipe.objects, context.device)
    documents = with_empty_images(tokenizer, objects, "train", context.seed, context.device)
    image = model.config.image_token_id
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    pairs = PairedBatches(documents, recipe.batch_size, image, context.seed)

    def random_resolution_loss(model: InternVL, batch: tuple) -> LossSum:
        full, coarse, is_full = batch
        everything = torch.ones_like(is_full)
        mixed = (
            consistency(model, frozen, full, full, everything),
            consistency(model, frozen, full, coarse, ~everything),
        )
        losses = torch.where(is_full, *mixed)
        return LossSum.of(losses.sum(), losses.numel())

    result = train(
        model,
        pairs,
        random_resolution_loss,
        muon_config(recipe.consistency_steps, recipe.learning_rate / 2, seed=context.seed),
        run=context.subfolder("consistency").run_options(label="router, consistency"),
        stages=(stage_without(model, recipe.consistency_steps, ("router",)),),
    )
    threshold = RatioThreshold(percentile)

    def target_loss(model: InternVL, batch: tuple) -> LossSum:
        full, coarse, is_full = batch
        everything = torch.ones_like(is_full)
        with torch.no_grad():
            fine = consistency(model, frozen, full, full, everything)
            low = consistency(model, frozen, full, coarse, ~everything)
            ratios = router_targets(low, fine, 0.0)[1]
            targets, _ = router_targets(low, fine, threshold.update(ratios))
        assert model.tile_encoder.router is not None
        return LossSum.of_mean(router_loss(model.tile_encoder.router(full.features), targets), len(targets))

    routed = train(
        model,
        pairs,
        target_loss,
        muon_config(recipe.router_steps, recipe.router_rate, seed=context.seed),
        run=context.subfolder("router").run_options(label="router, router"),
        stages=(Stage(recipe.router_steps, ("tile_encoder.router.*",)),),
    )
    measured: dict = {
        "consistency_curve": curve_from_history(result.history, "loss"),
        "router_curve": curve_from_history(routed.history, "loss"),
    }
    setting = scene_setting(recipe.objects)
    for split, prefix, questions in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        objects, _ = evaluation_images(tokenizer, split, TEST_SEED, questions // 2, setting, context.device)
        examples = with_empty_images(tokenizer, objects, split, TEST_SEED, context.device)
        measured |= {f"{prefix}{name}": value for name, value in routing_scores(model, examples).items()}
    return measured


def stage_without(model: InternVL, steps: int, frozen: tuple[str, ...]) -> Stage:
    """Return a stage that trains all weights but those of the tile encoder whose names begin with one of `frozen`."""
    excluded = tuple(f"tile_encoder.{name}" for name in frozen)
    return Stage(steps, tuple(name for name, _ in model.named_parameters() if not name.startswith(excluded)))


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def answers_at(model: InternVL, documents: Sequence[Document], is_full: bool) -> list[bool]:
    """Return which documents are answered exactly when all images have all their tokens, or none has."""
    model.eval()
    correct: list[bool] = []
    for first in range(0, len(documents), BATCH):
        rows = documents[first : first + BATCH]
        full = torch.full((len(rows),), is_full, device=device_of(model))
        batch = to_device(at_resolution(rows, full, model.config.image_token_id), device_of(model))
        correct += exact_rows(batch_logits(model, batch, full), batch).tolist()
    return correct


@torch.no_grad()
def router_scores(model: InternVL, documents: Sequence[Document]) -> Float[Tensor, "images"]:
    """Return the router's score of each image; it gets all its tokens when the score is at least 0."""
    router = model.tile_encoder.router
    assert router is not None
    grids = torch.stack([document.features for document in documents if document.features is not None])
    return torch.cat([router(part.to(device_of(model))).cpu() for part in grids.split(256)])


def routing_scores(model: InternVL, documents: Sequence[Document]) -> dict:
    """Return accuracies by the fraction of compressed images, for the router's order and for random ones.

    saved         fraction of the visual tokens that the router's own decisions save
    routed        accuracy with its own decisions
    random        accuracy when as many random images are compressed, the expected value
    random_<percent>, routed_<percent>  the same for the fractions of `FRACTIONS`
    """
    fine, coarse = (torch.tensor(answers_at(model, documents, is_full)).double() for is_full in (True, False))
    scores = router_scores(model, documents)
    order = scores.argsort()
    compressed = (scores < 0).double()
    compressed_fraction = compressed.mean().item()
    measured = {
        "full": fine.mean().item(),
        "coarse": coarse.mean().item(),
        "saved": 0.75 * compressed_fraction,
        "routed": (compressed * coarse + (1 - compressed) * fine).mean().item(),
        "random": compressed_fraction * coarse.mean().item() + (1 - compressed_fraction) * fine.mean().item(),
    }
    for fraction in FRACTIONS:
        chosen = torch.zeros(len(documents), dtype=torch.float64)
        chosen[order[: round(fraction * len(documents))]] = 1.0
        name = f"{round(100 * fraction)}"
        measured[f"routed_{name}"] = (chosen * coarse + (1 - chosen) * fine).mean().item()
        measured[f"random_{name}"] = fraction * coarse.mean().item() + (1 - fraction) * fine.mean().item()
    return measured
