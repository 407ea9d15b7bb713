"""The shipped image tokenizer, and a decoder over its codes that draws, captions and answers.

make checkpoint-11
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from data.toybox.heldout import TEST_SEED, VERSION
from lessons.lesson_11_chameleon.experiment.evaluate import measure_drawings, measure_texts
from lessons.lesson_11_chameleon.experiment.evaluate_tokenizer import measure_tokenizer
from lessons.lesson_11_chameleon.experiment.tokenizer_training import TokenizerRecipe, train_tokenizer
from lessons.lesson_11_chameleon.experiment.train import Recipe, train_decoder
from lessons.lesson_11_chameleon.model.toy_chameleon import NAME, ToyChameleon
from shared.course.checkpoint import Checkpoint
from shared.course.lesson import ROOT
from shared.devices import fastest_precision
from shared.training import RunOptions

TOKENIZER_RECIPE = TokenizerRecipe(steps=9000, scenes=20_000)
RECIPE = Recipe(steps=6000, documents=60_000, learning_rate=1e-2)
RUN_FOLDER = ROOT / "runs" / "checkpoint_11"
"""Where an interrupted run continues; it is removed at the end."""
HELD_OUT = 500
SPLITS = {"seen combinations": "validation", "unseen combinations": "test"}


def build_checkpoint(
    folder: Path, run_folder: Path, tokenizer_recipe: TokenizerRecipe, recipe: Recipe, held_out: int = HELD_OUT
) -> dict[str, float | int | str]:
    """Train the image tokenizer, then the decoder; write both in bfloat16, and return what the files measure."""
    torch.set_num_threads(1)
    run = RunOptions(run_folder / "tokenizer", resume=True, label="image tokenizer")
    image_tokenizer, tokenizer_result = train_tokenizer(tokenizer_recipe, run)
    image_tokenizer = image_tokenizer.to(torch.bfloat16).float()  # the decoder learns the codes of the shipped weights
    run = replace(run, folder=run_folder / "decoder", label="decoder")
    model, curve = train_decoder(image_tokenizer, recipe, run)
    model.save(folder)
    model = ToyChameleon.load(folder)  # with the weights as rounded
    measured: dict[str, float | int | str] = {
        "image tokenizer, steps": tokenizer_recipe.steps,
        "image tokenizer, seconds": round(tokenizer_result.history[-1]["seconds"]),
        "decoder, steps": recipe.steps,
        "decoder, seconds": round(curve["seconds"]),
    }
    for title, split in SPLITS.items():
        scores = {
            f"reconstructions, {k}": v for k, v in measure_tokenizer(model.image_tokenizer, split, held_out).items()
        }
        scores |= measure_drawings(model, split, TEST_SEED, held_out).scores
        scores |= measure_texts(model, split, TEST_SEED, held_out)
        measured |= {f"{title}, {name}": round(value, 4) for name, value in scores.items()}
    shutil.rmtree(run_folder)
    return measured


def make_checkpoint(folder: Path) -> Mapping[str, float | int | str]:
    """Build the shipped checkpoint; `make checkpoint-11` calls this."""
    recipe = replace(RECIPE, precision=fastest_precision())
    return build_checkpoint(folder, RUN_FOLDER, TOKENIZER_RECIPE, recipe)


CHECKPOINT = Checkpoint(
    NAME,
    "A VQ-VAE of toy-world images, 8 × 8 codes of 512, and a decoder over text and codes that draws, captions and "
    "answers questions about scenes of one object.",
    make_checkpoint,
    VERSION,
    parents=("lesson_00_decoder",),
)
