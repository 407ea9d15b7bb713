"""V2PE: a reader of image sequences is trained on short ones, and tested on longer ones with several steps δ."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, device_of, small_model
from lessons.lesson_10_internvl.experiment.haystack import Bank, Sequences, sequences, with_images
from lessons.lesson_10_internvl.model import STEPS, InternVL, choose_step, draw_steps
from shared.course.context import RunContext
from shared.tokenizers import Tokenizer
from shared.training import Batches, LossSum, curve_from_history, muon_config, train

ROWS = 16
"""Sequences per batch of evaluation."""
NEXT_NUMBERS = 10**6
"""Distance between the numbers of training sequences of different lengths."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one arm.

    steps_of_images  "drawn": δ is drawn anew for each sequence; "one": δ = 1, which is ordinary rotary encoding
    trained          numbers of images of the training sequences, in turns
    sequences        training sequences per number of images
    """

    steps_of_images: Literal["drawn", "one"] = "drawn"
    trained: Sequence[int] = (2, 3, 4)
    sequences: int = 1500
    batch_size: int = 16
    learning_rate: float = 5e-3
    width: int = 64
    depth: int = 3
    heads: int = 4
    rotary_base: float = 100.0
    precision: str = "float32"


class SequenceBatch(NamedTuple):
    """Sequences with the features of their images, and the step δ of each image in reading order."""

    features: Float[Tensor, "all_images side side width"]
    token_ids: Int[Tensor, "rows tokens"]
    answer_mask: Bool[Tensor, "rows tokens"]
    image_steps: Float[Tensor, "all_images"]


class SequenceBatches:
    """Batches of sequences, the numbers of images in turns; a pure function of the index, as `Batches`."""

    def __init__(self, groups: Sequence[Sequences], features: Tensor, recipe: Recipe, reader: "Reader", seed: int):
        self.groups, self.features, self.recipe, self.reader, self.seed = groups, features, recipe, reader, seed
        self.batches = [
            Batches(group.index, group.token_ids, group.answer_mask, batch_size=recipe.batch_size, seed=seed)
            for group in groups
        ]

    def __call__(self, index: int) -> SequenceBatch:
        turn, number = index % len(self.groups), index // len(self.groups)
        rows, text, mask = self.batches[turn](number)
        steps = torch.ones(rows.numel())
        if self.recipe.steps_of_images == "drawn":
            generator = torch.Generator().manual_seed(self.seed * 10**6 + index)
            steps = draw_steps(len(rows), generator).repeat_interleave(rows.shape[1])
        return self.reader.batch(self.features[rows], text, mask, steps)


class Reader:
    """A model of image sequences with its tokenizer."""

    def __init__(self, recipe: Recipe, device: str):
        self.tokenizer: Tokenizer = load_language_model()[1]
        vocab = self.tokenizer.vocab_size + 1
        self.model = small_model(vocab, recipe.width, recipe.depth, recipe.heads, recipe.rotary_base).to(device)

    def batch(
        self,
        features: Float[Tensor, "rows images side side width"],
        text: Int[Tensor, "rows text"],
        mask: Bool[Tensor, "rows text"],
        steps: Float[Tensor, "all_images"],
    ) -> SequenceBatch:
        """Return sequences as a batch: the tokens of the images stand before the text."""
        token_ids = with_images(text, features.shape[1], self.tokenizer, self.model.config.image_token_id)
        before = torch.zeros(len(text), token_ids.shape[1] - text.shape[1], dtype=torch.bool)
        return SequenceBatch(features.flatten(0, 1), token_ids, torch.cat([before, mask], dim=1), steps)


def sequence_logits(model: InternVL, batch: SequenceBatch) -> Float[Tensor, "answer_tokens vocab"]:
    """Return the logits that predict the tokens of the answers, row by row."""
    visual = model.tile_encoder.visual_tokens(batch.features).embeddings
    prompt = model.prompt(batch.token_ids, visual, batch.image_steps)
    states = model.hidden_states(embeddings=prompt.embeddings, prompt=prompt)
    return model.output(states[:, :-1][batch.answer_mask[:, 1:]])


def sequence_loss(model: InternVL, batch: tuple[Tensor, ...]) -> LossSum:
    """Return the cross-entropy of the answers' tokens."""
    own = SequenceBatch(*batch)
    targets = own.token_ids[own.answer_mask]
    return LossSum.of(cross_entropy(sequence_logits(model, own).float(), targets, reduction="sum"), len(targets))


@torch.no_grad()
def sequence_accuracy(reader: Reader, group: Sequences, features: Tensor, step: float) -> dict[str, float]:
    """Return the accuracy on sequences with one δ for all images, over both question types as "all" and by type."""
    model, hits = reader.model.eval(), defaultdict(list)
    device = device_of(model)
    for rows in torch.arange(len(group.index)).split(ROWS):
        index = group.index[rows]
        steps = torch.full((index.numel(),), step)
        batch = reader.batch(features[index], group.token_ids[rows], group.answer_mask[rows], steps)
        batch = SequenceBatch(*(tensor.to(device) for tensor in batch))
        right = sequence_logits(model, batch).argmax(dim=-1) == batch.token_ids[batch.answer_mask]
        counts = batch.answer_mask.sum(dim=1).tolist()
        for row, part in zip(rows.tolist(), right.split(counts), strict=True):
            hits[group.types[row]].append(bool(part.all()))
    measured = {name: fmean(values) for name, values in hits.items()}
    return measured | {"all": fmean(value for values in hits.values() for value in values)}


def positions_of(images: int, text: int) -> tuple[int, int]:
    """Return the numbers of text tokens and of visual tokens of a sequence; a newline follows each image."""
    return 1 + images + text, IMAGE_TOKENS * images


def train_positions(
    context: RunContext,
    *,
    steps: int,
    tested: Sequence[int],
    test_steps: Sequence[float] = STEPS,
    held_out: int = 240,
    **recipe_values,
) -> dict:
    """Train a reader on short sequences and measure it on sequences of each number of images in `tested`.

    test_steps      values of δ at which the longest test sequences are tested
    held_out        test sequences per number of images; validation sequences are half as many
    recipe_values   fields of `Recipe`

    `<images>x<δ>_<type>` is an accuracy. `<images>_chosen` is the one at the largest δ whose last position is at most
    that of the longest training sequence with δ = 1, and `<images>_step` this δ. The context's data set is ignored.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    reader, bank = Reader(recipe, context.device), Bank()
    groups = [
        sequences(
            reader.tokenizer, bank, "train", context.seed, range(turn * 10**6, turn * 10**6 + recipe.sequences), n
        )
        for turn, n in enumerate(recipe.trained)
    ]
    batches = SequenceBatches(groups, bank.features(context.device), recipe, reader, context.seed)
    config = muon_config(
        steps,
        recipe.learning_rate,
        seed=context.seed,
        checkpoint_every=max(100, steps // 4),
        precision=recipe.precision,
    )
    result = train(reader.model, batches, sequence_loss, config, run=context.run_options())
    reader.model = result.model
    measured: dict = {"loss_curve": curve_from_history(result.history, "loss"), "recipe": asdict(recipe)}
    text = max(group.token_ids.shape[1] for group in groups)
    trained_positions = sum(positions_of(max(recipe.trained), text))
    for split, prefix, count in (("test", "", held_out), ("validation", "validation_", held_out // 2)):
        for images in tested:
            group = sequences(reader.tokenizer, bank, split, TEST_SEED, range(count), images)
            features = bank.features(context.device)
            chosen = choose_step(*positions_of(images, text), trained_positions)
            for step in sorted(
                {1.0, chosen, *(test_steps if (split, images) == ("test", max(tested)) else ())}, reverse=True
            ):
                scores = sequence_accuracy(reader, group, features, step)
                measured |= {f"{prefix}{images}x{step:g}_{name}": value for name, value in scores.items()}
            measured[f"{prefix}{images}_chosen"] = measured[f"{prefix}{images}x{chosen:g}_all"]
            measured[f"{prefix}{images}_step"] = chosen
    return measured
