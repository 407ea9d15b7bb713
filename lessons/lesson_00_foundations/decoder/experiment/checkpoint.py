"""The small language model that later lessons keep frozen: the headline arm, larger, trained for longer, and on interviews too.

make checkpoint-0
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from data.toybox.documents import INTERVIEW_MIXTURE
from data.toybox.heldout import VERSION
from lessons.lesson_00_foundations.decoder.experiment.arms import train_decoder
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder
from shared.course.checkpoint import CHECKPOINTS_FOLDER, Checkpoint
from shared.tokenizers import load_tokenizer
from shared.training import load_weights

SIZES = {"width": 96, "depth": 4, "heads": 4, "kv_heads": 2, "mlp_dim": 256}
LENGTH_OF_TRAINING = {"steps": 7000, "documents": 160_000}
FOLDER = CHECKPOINTS_FOLDER / "lesson_00_decoder"


def make(folder: Path, *, steps: int, documents: int, **sizes: int) -> dict[str, float | int | str]:
    """Train, and write the model as a folder of `LlamaForCausalLM`, in bfloat16, with its tokenizer; return what was measured."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as run:
        measured = train_decoder(
            seed=0, data="toybox", device="cpu", folder=Path(run), resume=False, steps=steps, documents=documents,
            mixture=INTERVIEW_MIXTURE, **sizes,
        )  # fmt: skip
        tokenizer = load_tokenizer(Path(run) / "tokenizer.json")
        model = load_weights(toy_decoder(tokenizer.vocab_size, **sizes), Path(run))
        # Half the bytes; what is measured was measured before the rounding.
        model.to(torch.bfloat16).save_pretrained(folder, bos_token_id=tokenizer.special_tokens[BEGIN_TOKEN])
        shutil.copyfile(Path(run) / "tokenizer.json", folder / "tokenizer.json")
    return {
        name: value for name, value in measured.items() if not name.endswith(("_curve", "_seconds")) and plain(value)
    }


def plain(value: object) -> bool:
    """Whether it is one number, not a list of them."""
    return isinstance(value, int | float)


def make_checkpoint(folder: Path) -> Mapping[str, float | int | str]:
    """What `make checkpoint-0` does."""
    return make(folder, **LENGTH_OF_TRAINING, **SIZES)


CHECKPOINT = Checkpoint(
    "lesson_00_decoder",
    "A small Llama that has read of the toy world, answers simple questions and learns simple rules in context; lessons 3 and 4 keep it frozen.",
    make_checkpoint,
    VERSION,
)
