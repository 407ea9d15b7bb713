"""Models, data and settings that the tests of several processes train, and one process for comparison."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.training import Batches, LossSum, Stage
from shared.transformer import MLP, Attention, Block, Decoder, DecoderConfig

WIDTH, STEPS = 16, 50


class SmallVisionTransformer(nn.Module):
    """A Vision Transformer from shared parts: 2 × 2 patches of 8 × 8 pixels, a class token, learned positions."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, WIDTH))
        norm = partial(nn.LayerNorm, WIDTH)
        self.blocks = nn.ModuleList(
            Block(Attention(WIDTH, 2), MLP(WIDTH, 24, dropout=dropout), norm, layer_scale=0.5) for _ in range(2)
        )
        self.norm = norm()
        self.head = nn.Linear(WIDTH, 3)  # three rows divide neither among two processes nor among four

    def features(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


def classify(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    # Two parts one after the other, as in many losses, and not the model's own `forward`.
    logits = model.head(model.features(batch["images"])[:, 0])
    accuracy = (logits.argmax(-1) == batch["labels"]).float().mean()
    return F.cross_entropy(logits, batch["labels"]), {"accuracy": accuracy}


def classify_with_noise(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss that also draws from Python's and NumPy's generators, as third-party augmentations do."""
    value, metrics = classify(model, batch)
    return value * (1 + 0.1 * random.random() + 0.1 * np.random.rand()), metrics  # noqa: NPY002


def without_positions(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A loss that does not use all parameters: the others must not change, nor block a process."""
    tokens = model.blocks[1](model.patches(batch["images"]).flatten(2).mT)
    return F.cross_entropy(model.head(tokens.mean(1)), batch["labels"])


def next_token_loss(model: nn.Module, token_ids: Tensor) -> Tensor:
    return F.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())


def ragged_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> LossSum:
    """A loss over unequally many tokens per row: most terms are in the rows of one process."""
    token_ids, lengths = batch
    inside = torch.arange(1, token_ids.shape[1]) < lengths[:, None]
    logits, labels = model(token_ids[:, :-1])[inside], token_ids[:, 1:][inside]
    return LossSum.of(F.cross_entropy(logits, labels, reduction="sum"), inside.sum())


def add_noise(batch: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return batch[0] + 0.1 * torch.randn(batch[0].shape, generator=generator), *batch[1:]


GENERATOR = torch.Generator().manual_seed(3)
PIXELS = torch.randn(64, 1, 8, 8, generator=GENERATOR)
LABELS = PIXELS.mean((1, 2, 3)).sign().long() + 1
IMAGES = Batches(PIXELS, LABELS, torch.arange(64), batch_size=8, seed=1, augment=add_noise)
# Counting in steps of 1 to 4, modulo the vocabulary size: something that can be learned.
STARTS, STRIDES = torch.randint(13, (64, 1), generator=GENERATOR), torch.randint(1, 5, (64, 1), generator=GENERATOR)
TOKENS = Batches((STARTS + STRIDES * torch.arange(10)) % 13, batch_size=8, seed=1)
# The first half of a batch has long rows and the second half short ones.
LENGTHS = torch.tensor([10, 10, 9, 10, 2, 3, 2, 2])


def images(index: int) -> dict[str, Tensor]:
    return dict(zip(("images", "labels", "rows"), IMAGES(index), strict=True))


def ragged_tokens(index: int) -> tuple[Tensor, Tensor]:
    return TOKENS(index), LENGTHS


def decoder() -> Decoder:
    return Decoder(DecoderConfig(13, WIDTH, 2, 2, 1, 24, tied=True))


@dataclass
class Case:
    make: Callable[[], nn.Module]
    batch_at: Callable[[int], object]
    loss: Callable
    settings: dict = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    evaluate: Callable | None = None


# Clipping applies in most steps, and each step consists of two batches.
CLIPPED = {"clip_norm": 0.5, "ema_decay": 0.9}
FULL = CLIPPED | {"accumulate": 2}
SHORT = {"steps": 12, "clip_norm": 0.5}
BY_PART = (Stage(5, ("blocks.*", "head.*")), Stage(7, ("patches.*", "head.*", "blocks.1.*")))
CASES = {
    "vit": Case(SmallVisionTransformer, images, classify, FULL),
    "decoder": Case(decoder, TOKENS, next_token_loss, CLIPPED),
    "ragged": Case(decoder, ragged_tokens, ragged_loss, SHORT | {"accumulate": 2}),
    "stages": Case(SmallVisionTransformer, images, classify, SHORT | {"optimizer": "sgd"}, BY_PART),
    "muon": Case(
        SmallVisionTransformer, images, classify, SHORT | {"steps": 6, "recompute": True, "optimizer": "muon"}
    ),
    "bfloat16": Case(decoder, TOKENS, next_token_loss, SHORT | {"precision": "bfloat16", "ema_decay": 0.9}),
    "part unused": Case(SmallVisionTransformer, images, without_positions, SHORT),
}
RANDOM_CASE = Case(partial(SmallVisionTransformer, dropout=0.2), images, classify_with_noise, FULL)
