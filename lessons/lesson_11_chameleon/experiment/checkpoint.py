"""The shipped image tokenizer, with the text tokenizer of the same vocabulary.

make checkpoint-11
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_11_chameleon.experiment.evaluate_tokenizer import measure_tokenizer
from lessons.lesson_11_chameleon.experiment.tokenizer_training import TokenizerRecipe, train_tokenizer
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer
from lessons.lesson_11_chameleon.model.toy_chameleon import NAME, TEXT_TOKENIZER
from shared.course.checkpoint import Checkpoint
from shared.course.lesson import ROOT
from shared.tokenizers.tokenizer_json import save_tokenizer
from shared.training import RunOptions

TOKENIZER_RECIPE = TokenizerRecipe(steps=9000, scenes=20_000)
RUN_FOLDER = ROOT / "runs" / "checkpoint_11"
"""Where an interrupted run continues."""
HELD_OUT = 500
SPLITS = {"seen combinations": "validation", "unseen combinations": "test"}


def build_checkpoint(
    folder: Path, run_folder: Path, recipe: TokenizerRecipe, held_out: int = HELD_OUT
) -> dict[str, float | int | str]:
    """Train the image tokenizer; write it in bfloat16, and return what the file measures."""
    torch.set_num_threads(1)
    run = RunOptions(run_folder / "tokenizer", resume=True, label="image tokenizer")
    image_tokenizer, result = train_tokenizer(recipe, run)
    image_tokenizer.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(load_language_model()[1], folder / TEXT_TOKENIZER)
    image_tokenizer = ImageTokenizer.from_pretrained(folder)  # with the weights as rounded
    seconds = result.history[-1]["seconds"]
    measured: dict[str, float | int | str] = {
        "image tokenizer, steps": recipe.steps,
        "image tokenizer, seconds": round(seconds),
    }
    for title, split in SPLITS.items():
        scores = measure_tokenizer(image_tokenizer, split, held_out)
        measured |= {f"{title}, {name}": round(value, 4) for name, value in scores.items()}
    return measured


def make_checkpoint(folder: Path) -> Mapping[str, float | int | str]:
    """Build the shipped checkpoint; `make checkpoint-11` calls this."""
    return build_checkpoint(folder, RUN_FOLDER, TOKENIZER_RECIPE)


CHECKPOINT = Checkpoint(
    NAME,
    "A VQ-VAE of toy-world images, 8 × 8 codes of 512, with the text tokenizer of the same vocabulary.",
    make_checkpoint,
    VERSION,
    parents=("lesson_00_decoder",),
)
