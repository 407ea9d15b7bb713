"""Train a captioner on a folder of images with captions, or on the toy world."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from apps.captioner.captions import generate_captions, score_captions_of
from apps.captioner.config import PRESETS
from apps.captioner.data import CaptionBatches, CaptionedImages, gray_images, read_folder, train_tokenizer
from apps.captioner.model import Captioner, caption_loss
from apps.captioner.run_folder import CLIP, RunRecord, begin_run, captions_digest, check_same_run, pixels_digest
from apps.captioner.toy_world import OBJECTS, fraction_true, load_clip_weights, toy_images
from data.toybox.heldout import TEST_SEED
from shared.distributed import is_main
from shared.tokenizers import Tokenizer
from shared.training import Evaluation, RunOptions, Stage, TrainingConfig, TrainingResult, muon_config, train

LEARNING_RATES = {"small": 3e-3, "full": 3e-4}
"""Peaks of AdamW's learning rate; the wide model needs a smaller one."""
EVALUATED_IMAGES = 64
"""Held-out images that are captioned during training on a folder."""
EVALUATED_SCENES = 100
"""Test scenes that are captioned during training on the toy world."""


@dataclass(frozen=True)
class FolderRecipe:
    """Set how a captioner is trained on a folder.

    learning_rate  peak of AdamW's schedule; None: the preset's own
    held_out       fraction of held-out images; 0 trains on all and evaluates on the same
    """

    preset: str = "small"
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float | None = None
    held_out: float = 0.1
    precision: Literal["float32", "bfloat16"] = "float32"

    def training_config(self, seed: int) -> TrainingConfig:
        """Return the training loop's settings."""
        return TrainingConfig(
            steps=self.steps,
            learning_rate=self.learning_rate or LEARNING_RATES[self.preset],
            warmup_steps=min(self.steps // 10, 500),
            betas=(0.9, 0.98),
            precision=self.precision,
            seed=seed,
            log_every=max(1, min(10, self.steps // 10)),
            checkpoint_every=max(1, min(500, self.steps // 4)),
        )


@dataclass(frozen=True)
class ToyWorldRecipe:
    """Set how the small captioner is trained on the toy world.

    scenes          number of training scenes, each with a number of `objects` in this range
    vision_encoder  "clip": lesson 2's, frozen; "new": from random weights, trained too
    blind           replace every image by a gray one, in training and evaluation: the baseline without vision
    """

    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 5e-3
    scenes: int = 6000
    objects: tuple[int, int] = OBJECTS
    vision_encoder: Literal["clip", "new"] = "clip"
    blind: bool = False

    @property
    def preset(self) -> str:
        """The name under which the run folder records the configuration."""
        return CLIP if self.vision_encoder == "clip" else "small"

    def training_config(self, seed: int) -> TrainingConfig:
        """Return the training loop's settings."""
        return muon_config(self.steps, self.learning_rate, seed=seed)


def train_on_folder(
    images: Path, folder: Path, recipe: FolderRecipe, *, seed: int = 0, run: RunOptions | None = None
) -> TrainingResult:
    """Train on the images in `images` and write the run to `folder`; `run.resume` continues an interrupted run.

    Raises CourseError for images or captions that cannot be read, and when another run is to be resumed.
    """
    run = replace(run or RunOptions(), folder=folder, label=folder.name)
    config = PRESETS[recipe.preset]
    training, test = read_folder(images, config.vision.image_sides[0], held_out=recipe.held_out)
    digest = pixels_digest(training.pixels)
    record = RunRecord(recipe.preset, recipe.held_out, seed, captions_digest(training.captions), pixels=digest)
    tokenizer = _open_run(folder, record, training, resume=run.resume)
    torch.manual_seed(seed)
    model = Captioner(config)
    evaluated = test.split(EVALUATED_IMAGES)[0]

    def evaluate(trained: torch.nn.Module) -> dict[str, float]:
        return score_captions_of(generate_captions(trained, tokenizer, evaluated.pixels), evaluated)

    return train(
        model,
        CaptionBatches(training, tokenizer, batch_size=recipe.batch_size, seed=seed),
        caption_loss,
        recipe.training_config(seed),
        run=run,
        evaluation=Evaluation(evaluate, every=max(1, recipe.steps // 5)),
    )


def train_on_toy_world(
    folder: Path, recipe: ToyWorldRecipe, *, seed: int = 0, run: RunOptions | None = None
) -> TrainingResult:
    """Train the small captioner on the toy world and write the run to `folder`. Raises as `train_on_folder` does."""
    run = replace(run or RunOptions(), folder=folder, label=folder.name)
    training, _ = toy_images("train", seed, recipe.scenes, objects=recipe.objects)
    test, scenes = toy_images("test", TEST_SEED, EVALUATED_SCENES, objects=recipe.objects)
    pixels = gray_images(test.pixels) if recipe.blind else test.pixels
    digest = pixels_digest(training.pixels)
    record = RunRecord(recipe.preset, 0.0, seed, captions_digest(training.captions), recipe.blind, digest)
    tokenizer = _open_run(folder, record, training, resume=run.resume)
    torch.manual_seed(seed)
    model, stages = Captioner(record.config), ()
    if recipe.vision_encoder == "clip":
        load_clip_weights(model)
        stages = (Stage(recipe.steps, ("connector.*", "language_model.*")),)

    def evaluate(trained: torch.nn.Module) -> dict[str, float]:
        return {"true": fraction_true(generate_captions(trained, tokenizer, pixels), scenes)}

    return train(
        model,
        CaptionBatches(training, tokenizer, batch_size=recipe.batch_size, seed=seed, blind=recipe.blind),
        caption_loss,
        recipe.training_config(seed),
        run=run,
        evaluation=Evaluation(evaluate, every=max(1, recipe.steps // 8)),
        stages=stages,
    )


def _open_run(folder: Path, record: RunRecord, training: CaptionedImages, *, resume: bool) -> Tokenizer:
    """Begin a run in `folder`, or check that it can be resumed; return the tokenizer of its captions."""
    tokenizer = train_tokenizer(training.captions, record.config.language.vocab_size)
    if resume:
        check_same_run(folder, record)
    elif is_main():
        begin_run(folder, record, tokenizer)
    return tokenizer
