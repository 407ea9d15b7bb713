"""The arms that are trained: an encoder of packed pages with a small head that reads the character at a point."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.heldout import TEST_SEED
from data.toybox.page.tensors import CHARACTERS
from lessons.lesson_06_any_resolution.experiment.data import PageSource, ReadingBatch
from lessons.lesson_06_any_resolution.experiment.evaluate import reading_accuracy
from lessons.lesson_06_any_resolution.experiment.resizing import PATCH_SIZE, VIEWS, Resizing
from lessons.lesson_06_any_resolution.model import NaViT, NaViTConfig
from shared.course.context import RunContext
from shared.training import LossSum, curve_from_history, muon_config, train

FREQUENCIES = (1, 2, 4)
GRID_SIZES = {"factorized-absolute": 80}
"""Absolute positions need an entry for every patch row of the longest page."""
OTHER_GRID_SIZE = 16


@dataclass(frozen=True)
class Recipe:
    """The settings of one arm.

    kinds       names of pages in `data.SETTINGS`, in turns
    resizing    "native", "square" or "anyres"
    budgets     greatest numbers of patches per page, in turns
    area        width × height of a page in pixels; None for 8,192
    positions   position scheme of the encoder, as in `NaViTConfig`
    width       dimension of a token
    depth       number of transformer blocks
    batch_size  pages per step
    """

    kinds: Sequence[str] = ("receipt",)
    resizing: Resizing = "native"
    budgets: Sequence[int] = (128,)
    area: int | None = None
    positions: str = "factorized-absolute"
    width: int = 64
    depth: int = 3
    heads: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-2
    precision: str = "float32"

    def source(self, split: str, seed: int, kinds: Sequence[str] | None = None) -> PageSource:
        """Return the pages of a split; of other kinds if they are given."""
        return PageSource(split, seed, kinds or self.kinds, self.resizing, self.budgets, self.batch_size, self.area)


class Reader(nn.Module):
    """Encode packed pages and classify what stands at points of them.

    The head reads the token that shows the point, in every view, and where the point lies within the token's patch.
    """

    def __init__(self, config: NaViTConfig, views: int, hidden: int):
        super().__init__()
        self.encoder = NaViT(config)
        inputs = config.width + 4 * len(FREQUENCIES)
        self.views = nn.ModuleList(nn.Linear(inputs, hidden) for _ in range(views))
        self.inner = nn.Linear(hidden, hidden)
        self.classify = nn.Linear(hidden, len(CHARACTERS))

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "points classes"]:
        """Return the logits of each point."""
        features = self.encoder.features(batch.patches).flatten(0, 1)
        read = [
            layer(torch.cat([features[batch.tokens[:, view]], offset_features(batch.offsets[:, view])], dim=-1))
            for view, layer in enumerate(self.views)
        ]
        hidden = torch.stack(read).sum(dim=0)
        return self.classify(F.gelu(self.inner(F.gelu(hidden))))


def offset_features(offsets: Float[Tensor, "points 2"]) -> Float[Tensor, "points features"]:
    """Return sines and cosines of offsets between −1/2 and 1/2 patch."""
    angles = torch.cat([torch.pi * frequency * offsets for frequency in FREQUENCIES], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def build_reader(recipe: Recipe) -> Reader:
    """Return an untrained reader."""
    config = NaViTConfig(
        patch_size=PATCH_SIZE,
        width=recipe.width,
        depth=recipe.depth,
        heads=recipe.heads,
        mlp_dim=4 * recipe.width,
        positions=recipe.positions,  # type: ignore[arg-type]
        grid_size=GRID_SIZES.get(recipe.positions, OTHER_GRID_SIZE),
        pooling="none",
    )
    return Reader(config, VIEWS[recipe.resizing], 2 * recipe.width)


def reading_loss(model: nn.Module, batch: ReadingBatch) -> LossSum:
    """Return the cross-entropy of all points of a batch."""
    batch = batch.to(next(model.parameters()).device)
    return LossSum.of(F.cross_entropy(model(batch).float(), batch.classes, reduction="sum"), len(batch.classes))


def train_reader(
    context: RunContext, *, steps: int, test_pages: int = 400, test_kinds: Sequence[str] = (), **recipe_values
) -> dict:
    """Train a reader on new pages in every step and measure it on validation and test pages.

    test_pages     test pages per kind and budget; validation pages are a quarter as many
    test_kinds     kinds of pages that are tested besides those of the training
    recipe_values  fields of `Recipe`

    The context's data set is ignored: pages are generated.
    """
    recipe = Recipe(**recipe_values)
    torch.manual_seed(context.seed)
    result = train(
        build_reader(recipe),
        recipe.source("train", context.seed),
        reading_loss,
        muon_config(
            steps,
            recipe.learning_rate,
            seed=context.seed,
            checkpoint_every=max(100, steps // 4),
            precision=recipe.precision,
        ),
        run=context.run_options(),
    )
    measured: dict = {"loss_curve": curve_from_history(result.history, "loss"), "recipe": asdict(recipe)}
    for kind in (*recipe.kinds, *test_kinds):
        for budget in recipe.budgets:
            for split, name, count in (("test", "", test_pages), ("validation", "validation_", test_pages // 4)):
                source = recipe.source(split, TEST_SEED, (kind,)).with_budget(budget)
                accuracy = reading_accuracy(result.model, source, count, context.device)
                measured |= {f"{name}{kind}_{budget}_{key}": value for key, value in accuracy.items()}
    return measured
