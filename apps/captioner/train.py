"""Train a captioner on a folder of pictures with captions.

    python -m apps.captioner.train PICTURES                            # small, on any machine
    python -m apps.captioner.train PICTURES --preset full --device cuda --precision bfloat16
    python -m apps.captioner.train PICTURES --resume                   # go on where it was stopped

It is left in runs/captioner/NAME (or in --run), for caption.py and evaluate.py beside this file.
"""

import argparse
import sys
from pathlib import Path

import torch

from apps.captioner.config import PRESETS
from apps.captioner.data import CaptionBatches, caption_tokenizer, read_folder
from apps.captioner.measure import scores, written
from apps.captioner.model import Captioner, caption_loss, parameters_by_part
from apps.captioner.run_folder import Record, begin_run, check_same, digest_of
from shared.cli import command_line
from shared.distributed import is_main
from shared.training import Evaluation, RunOptions, TrainingConfig, TrainingResult, train

RATES = {"small": 3e-3, "full": 3e-4}
"""Peaks of AdamW's learning rate: smaller for the wide model."""


def train_on_folder(
    pictures: Path,
    run: Path,
    *,
    preset: str = "small",
    steps: int = 1000,
    batch_size: int = 32,
    learning_rate: float | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    resume: bool = False,
) -> TrainingResult:
    """Learn from a folder and leave the captioner in `run`; with `resume` go on there, to the weights of a run never cut.

    Raises CourseError for pictures or captions that can't be read, and for a run that is another one.
    """
    config = PRESETS[preset]
    learn, test = read_folder(pictures, config.eye.image_sides[0], held_out=held_out)
    record = Record(preset, held_out, seed, digest_of(learn.captions))
    tokenizer = caption_tokenizer(learn.captions, config.language.vocab_size)
    if resume:
        check_same(run, record)
    elif is_main():
        begin_run(run, record, tokenizer)
    torch.manual_seed(seed)
    model = Captioner(config)
    few = slice(0, 64)
    return train(
        model,
        CaptionBatches(learn, tokenizer, batch_size=batch_size, seed=seed),
        caption_loss,
        TrainingConfig(
            steps=steps,
            learning_rate=learning_rate or RATES[preset],
            warmup_steps=min(steps // 10, 500),
            betas=(0.9, 0.98),
            precision=precision,
            seed=seed,
            log_every=max(1, min(10, steps // 10)),
            checkpoint_every=max(1, min(500, steps // 4)),
        ),
        run=RunOptions(folder=run, resume=resume, device=device, label=run.name),
        evaluation=Evaluation(
            lambda trained: scores(written(trained, tokenizer, test.pixels[few]), test.captions[few]),
            every=max(1, steps // 5),
        ),
    )


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "pictures", type=Path, help="a folder with pictures and captions.txt, captions.csv or captions.json"
    )
    parser.add_argument("--run", type=Path, help="where to leave it; runs/captioner/NAME when left out")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, help="the peak; the preset's own when left out")
    parser.add_argument("--held-out", type=float, default=0.1, help="the share of pictures held out; 0 learns from all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--resume", action="store_true", help="go on where the run was stopped")
    asked = vars(parser.parse_args())
    pictures = asked.pop("pictures")
    run = asked.pop("run") or Path("runs/captioner") / pictures.resolve().name
    result = train_on_folder(pictures, run, **asked)
    if is_main():
        last = result.history[-1]
        print(f"{parameters_by_part(result.model)['all']:,} weights, {result.steps} steps, loss {last['loss']:.3f}")
        print(
            "held out: " + ", ".join(f"{name.split('/')[1]} {last[name]:.3f}" for name in last if "evaluation/" in name)
        )
        print(f"caption a picture: python -m apps.captioner.caption {run} PICTURE")
    return 0


if __name__ == "__main__":
    sys.exit(main())
