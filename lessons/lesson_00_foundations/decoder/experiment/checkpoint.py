"""The shipped language model: larger than the headline arm, and trained on a curriculum of interviews.

make checkpoint-0
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from data.toybox.heldout import VERSION
from lessons.lesson_00_foundations.decoder.experiment.curriculum import (
    ROTARY_BASE,
    CurriculumRecipe,
    train_on_curriculum,
)
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.course.context import RunContext
from shared.devices import fastest_precision
from shared.tokenizers import load_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training import load_weights

SIZES = {"width": 96, "depth": 5, "heads": 6, "kv_heads": 6, "mlp_dim": 256}
RECIPE = CurriculumRecipe(steps=8000)
FOLDER = CHECKPOINTS_FOLDER / "lesson_00_decoder"


def build_checkpoint(folder: Path, recipe: CurriculumRecipe, **sizes: int) -> dict[str, float | int | str]:
    """Train, and write the model in bfloat16 as a folder of `LlamaForCausalLM` with its tokenizer.

    Returns the measured numbers.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        context = RunContext(seed=0, data="toybox", device="cpu", folder=Path(run))
        measured = train_on_curriculum(context, recipe, **sizes)
        tokenizer = load_tokenizer(context.folder / "tokenizer.json")
        model = load_weights(toy_decoder(tokenizer.vocab_size, **{"rotary_base": ROTARY_BASE} | sizes), context.folder)
        # bfloat16 halves the size; the numbers were measured before this rounding.
        model.to(torch.bfloat16).save_pretrained(folder, bos_token_id=tokenizer.special_tokens[BEGIN_TOKEN])
        shutil.copyfile(context.folder / "tokenizer.json", folder / "tokenizer.json")
    return {name: value for name, value in measured.items() if isinstance(value, int | float)}


def make_checkpoint(folder: Path) -> Mapping[str, float | int | str]:
    """Build the shipped checkpoint; `make checkpoint-0` calls this."""
    return build_checkpoint(folder, replace(RECIPE, precision=fastest_precision()), **SIZES)


CHECKPOINT = Checkpoint(
    "lesson_00_decoder",
    "A small Llama trained on toy-world text: it answers questions about described scenes and learns simple rules in "
    "context. Later lessons connect it to images.",
    make_checkpoint,
    VERSION,
)
