"""Make an assistant out of two models, in two stages.

    python -m apps.assistant.train --debug              # the toy world, this computer, a minute or two
    python -m apps.assistant.train --small-scale        # CLIP and Qwen2.5-0.5B: LoRA on 8-bit weights
    python -m apps.assistant.train --config FILE [--data FILE …] [--output FOLDER]
    python -m apps.assistant.train --resume runs/assistant/debug
    torchrun --nproc-per-node 8 -m apps.assistant.train --config FILE

The output folder holds the configuration, a folder of checkpoints and metrics for each stage, and in the end `model/`, which
evaluate.py, serve.py and `Assistant.from_folder` read. Ctrl-C or a kill loses no more than the steps since the last checkpoint.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from apps.assistant import config as configurations
from apps.assistant.assistant import Assistant
from apps.assistant.config import CONFIGURATIONS, FILE_NAME, Configuration, StageChoice
from apps.assistant.examples import Examples, read_examples
from apps.assistant.files import Habits
from apps.assistant.join import Joined, join
from apps.assistant.toy import FILES as TOY_FILES
from apps.assistant.toy import write_toy_world
from data.datasets.download import data_folder
from lessons.lesson_00_foundations.decoder.model import language_model as llama
from lessons.lesson_05_llava.model import Llava, first_stage, second_stage
from shared.cli import command_line
from shared.course.lesson import ROOT
from shared.distributed import gather_values, is_main
from shared.distributed import join as meet
from shared.errors import CourseError
from shared.finetuning import load_adapters, merge_and_remove_adapters, save_adapters, trainable_fraction
from shared.training import Batches, RunOptions, Stage, TrainingInterrupted, train
from shared.training.lock import exclusive_lock
from shared.training.stages import enter_stage

TOY, TOY_WORLD = "toy:", "toy-world"
PRESETS = {
    "debug": "a small model of the toy world, with nothing downloaded",
    "small_scale": "CLIP and Qwen2.5-0.5B on one small GPU",
    "full_scale": "the same in full, on several GPUs",
}


def run(configuration: Configuration, output: Path, *, resume: bool = False) -> Path:
    """Train as the configuration says, and return the folder of the finished model.

    With `resume` it goes on where the run in `output` stopped, to the same weights to the bit.
    Raises CourseError for what is missing, broken or does not fit, and as `shared.training.train` does.
    """
    device = meet(_device(configuration.device))
    joined = join(configuration.model, configuration.seed)
    with exclusive_lock(output) if is_main() else contextlib.nullcontext():
        if is_main():
            _begin(configuration, output, joined, resume)
        gather_values(None)  # nobody reads before all is written
        blank = _assistant(joined.model, joined, configuration)
        empty = Examples([], blank.template, joined.preprocessing, blank.image_tokens, configuration.model.context)
        for stage in configuration.stages:
            _train_stage(joined.model, stage, empty, configuration, output, device, resume)
        if is_main():
            _save(joined.model.cpu(), joined, configuration, output)
        gather_values(None)
    return output / "model"


def _device(asked: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _begin(configuration: Configuration, output: Path, joined: Joined, resume: bool) -> None:
    """Put the output folder in order: nothing of another run is left that this one could take for its own."""
    if not resume:
        for stage in configuration.stages:
            shutil.rmtree(output / stage.name, ignore_errors=True)
        shutil.rmtree(output / "model", ignore_errors=True)
    configurations.save(configuration, output / FILE_NAME)
    if any(file.startswith(TOY) for stage in configuration.stages for file in stage.data):
        write_toy_world(output / TOY_WORLD, configuration.toy_examples, size=joined.preprocessing.size)


def _train_stage(
    model: Llava,
    stage: StageChoice,
    empty: Examples,
    configuration: Configuration,
    output: Path,
    device: torch.device,
    resume: bool,
) -> None:
    files = [(data_file(name, output), stage.images and _found(stage.images)) for name in stage.data]
    examples = read_examples(files, empty, skip_bad=configuration.skip_bad)
    if len(examples.records) < stage.batch_size:
        raise CourseError(
            f"stage {stage.name}: {len(examples.records)} records do not fill a batch of {stage.batch_size}; "
            "give more of them, or a smaller batch_size"
        )
    learning = what_learns(stage, model)
    if is_main():
        enter_stage(model, learning)
        share = f"{trainable_fraction(model):.2%} of the weights learn"
        print(f"{stage.name}: {len(examples.records):,} records, {stage.steps:,} steps; {share}", flush=True)
    result = train(
        model,
        Batches(torch.arange(len(examples.records)), batch_size=stage.batch_size, seed=configuration.seed),
        examples.loss,
        configuration.training(stage),
        run=RunOptions(folder=output / stage.name, resume=resume, device=device, label=stage.name),
        stages=(learning,),
    )
    if is_main():
        last = result.history[-1]
        print(
            f"  after step {result.steps:,}: loss {last['loss']:.3f}, {last['right']:.1%} of the answers' tokens right",
            flush=True,
        )


def what_learns(stage: StageChoice, model: nn.Module) -> Stage:
    """The stage as the training loop has it: the projector, and the language model (its adapters, where it has some)."""
    if "language" not in stage.learns:
        return first_stage(stage.steps)
    both, projector = second_stage(stage.steps, model), first_stage(stage.steps)
    alone = tuple(pattern for pattern in both.trainable if pattern not in projector.trainable)
    return both if "projector" in stage.learns else Stage(stage.steps, alone)


def _save(model: Llava, joined: Joined, configuration: Configuration, output: Path) -> None:
    """Write the finished model whole; what was learned in adapters by itself too, in PEFT's layout."""
    choice = configuration.model
    if choice.adapters is not None:
        adapters, names = output / "adapters", llama.weight_names(model.language_model.config)
        save_adapters(adapters, model.language_model, names, base_model=choice.language)
        if choice.weights != "float32":
            # Rounding to a few bits would swallow what was learned: it goes into the weights as they were before.
            projector = model.projector
            model = join(replace(choice, weights="float32", adapters=None)).model
            model.projector = projector
            load_adapters(adapters, model.language_model, names)
        merge_and_remove_adapters(model.language_model)
    _assistant(model, joined, configuration).save(output / "model")


def _assistant(model: Llava, joined: Joined, configuration: Configuration) -> Assistant:
    habits = Habits(configuration.model.context, configuration.model.caption_prompt)
    return Assistant(model, joined.tokenizer, joined.preprocessing, habits)


def data_file(name: str, output: Path) -> Path:
    """The file that a stage's data mean. Raises CourseError when there is none, or no such toy data."""
    if not name.startswith(TOY):
        return _found(name)
    kind = name.removeprefix(TOY)
    if kind not in TOY_FILES:
        raise CourseError(f"data {name!r}: the toy world has {', '.join(TOY + each for each in TOY_FILES)}")
    return output / TOY_WORLD / TOY_FILES[kind]


def _found(name: str) -> Path:
    places = [Path(name), ROOT / name, data_folder() / name]
    for place in places:
        if place.exists():
            return place
    raise CourseError(
        f"{name} is neither here, nor in {ROOT}, nor in {data_folder()}; it is named by the configuration or --data"
    )


# ── The command line ──────────────────────────────────────────────────────────────────────────────────────────────────


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    for name, about in PRESETS.items():
        which.add_argument(f"--{name.replace('_', '-')}", dest="preset", action="store_const", const=name, help=about)
    which.add_argument("--config", type=Path, metavar="FILE", help="a configuration of your own")
    parser.add_argument(
        "--resume", type=Path, metavar="CHECKPOINT", help="go on with a run: its folder, or a checkpoint in it"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="FILE", help="records that all stages learn from, in place of the configuration's"
    )
    parser.add_argument(
        "--connector", choices=("patches", "embedding"), help="what the language model is shown of a picture"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="left out: runs/assistant/ and the configuration's name"
    )
    return parser


def read_command(arguments: Sequence[str] | None) -> tuple[Configuration, Path, bool]:
    """The configuration, the output folder, and whether to go on. Raises CourseError for what doesn't go together."""
    asked = _parser().parse_args(arguments)
    file = asked.config or (CONFIGURATIONS / f"{asked.preset}.json" if asked.preset else None)
    if asked.resume is None and file is None:
        raise CourseError(
            "nothing to train: give --debug, --small-scale, --full-scale, --config FILE or --resume CHECKPOINT"
        )
    output = asked.output or (run_of(asked.resume) if asked.resume else Path("runs/assistant") / file.stem)
    if asked.resume and output.resolve() != run_of(asked.resume).resolve():
        raise CourseError(
            f"the run of {asked.resume} goes on in its own folder, {run_of(asked.resume)}; leave --output out"
        )
    before = configurations.load(output / FILE_NAME) if asked.resume else None
    configuration = before if file is None else configurations.load(file)
    if asked.data:
        configuration = configuration.learning_from(*asked.data)
    if asked.connector:
        configuration = replace(configuration, model=replace(configuration.model, connector=asked.connector))
    if before is not None and configuration != before:
        raise CourseError(
            f"the run in {output} was started with another configuration ({output / FILE_NAME}); go on with its own by "
            "giving --resume alone, or start anew without --resume"
        )
    return configuration, output, asked.resume is not None


def run_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to, which may also be named itself, or a stage's folder in it."""
    for folder in (checkpoint, *list(checkpoint.parents)[:2]):
        if (folder / FILE_NAME).exists():
            return folder
    raise CourseError(f"{checkpoint} belongs to no run: neither there nor above it lies a {FILE_NAME}")


@command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    try:
        configuration, output, resume = read_command(arguments)
        folder = run(configuration, output, resume=resume)
    except TrainingInterrupted:
        print(f"stopped, and all is saved; go on with --resume {output}", file=sys.stderr)
        return 1
    if is_main():
        print(f"the assistant lies in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
