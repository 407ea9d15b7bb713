"""The options of `train`: a configuration from a file, changed by switches of the command line."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from apps.assistant import config as configurations
from apps.assistant.config import CONFIGURATIONS, FILE_NAME, AdapterSettings, Configuration, ModelConfig
from shared.errors import CourseError
from shared.options import COUNT, file_or_dataset, path
from shared.training.trackers import TRACKERS

PRESETS = {
    "debug": "a small model of the toy world, without downloads",
    "small_scale": "CLIP and Qwen2.5-0.5B on one small GPU",
    "full_scale": "the same, trained in full on several GPUs",
}
LORA = AdapterSettings(
    ("*.query", "*.key", "*.value", "*.attention.output", "*.gate", "*.up", "*.down"), rank=8, alpha=16.0, dropout=0.05
)
"""The adapters of --lora: on every linear layer of every block; another rank keeps alpha / rank."""


def read_train_options(options: argparse.Namespace, runs: Path) -> tuple[Configuration, Path, bool]:
    """Return the configuration, the output folder and whether to resume. Raises CourseError for a contradiction."""
    file = options.config or (CONFIGURATIONS / f"{options.preset}.json" if options.preset else None)
    if options.resume is None and file is None:
        raise CourseError(
            "nothing to train; use --debug, --small-scale, --full-scale, --config FILE or --resume CHECKPOINT"
        )
    run = find_run(options.resume) if options.resume else None
    output = options.output or run or runs / file.stem
    if run and output.resolve() != run.resolve():
        raise CourseError(f"the run of {options.resume} continues in its own folder, {run}; leave out --output")
    earlier = configurations.load(output / FILE_NAME) if run else None
    configuration = configurations.load(file) if file else earlier
    assert configuration is not None
    configuration = apply_switches(configuration, options)
    # The tracker changes no weight, so a run may continue with another one.
    if earlier is not None and replace(configuration, tracker=earlier.tracker) != earlier:
        raise CourseError(
            f"the run in {output} has another configuration ({output / FILE_NAME}); continue it with --resume alone, "
            "or start a new run without --resume"
        )
    return configuration, output, run is not None


def apply_switches(configuration: Configuration, options: argparse.Namespace) -> Configuration:
    """Return the configuration with the changes that the command line states; without a switch it stays as it is.

    Raises CourseError when they contradict each other or the configuration.
    """
    if options.data:
        configuration = configuration.with_data(*options.data)
    for name in ("skip_bad", "outside_images", "several_answers"):
        if getattr(options, name):
            configuration = replace(configuration, **{name: True})
    if options.tracker:
        configuration = replace(configuration, tracker=options.tracker)
    try:
        return replace(configuration, model=_model_with_switches(configuration.model, options))
    except ValueError as error:
        raise CourseError(f"{error} (--lora adds them)" if options.weights else str(error)) from error


def _model_with_switches(model: ModelConfig, options: argparse.Namespace) -> ModelConfig:
    """Return the model's settings with the command line's connector, adapters and storage of weights."""
    changes: dict[str, object] = {}
    if options.connector:
        changes["connector"] = options.connector
    if options.lora is not None:
        adapters = model.adapters or LORA
        changes["adapters"] = replace(adapters, rank=options.lora, alpha=adapters.alpha * options.lora / adapters.rank)
    if options.weights:
        changes["weights"] = options.weights
    return replace(model, **changes)


def find_run(checkpoint: Path) -> Path:
    """Return the run's folder, given the folder itself, one of its stages, or a checkpoint in a stage."""
    for folder in (checkpoint, *list(checkpoint.parents)[:2]):
        if os.path.exists(folder / FILE_NAME):  # Path.exists raises for names that are too long
            return folder
    raise CourseError(f"{checkpoint} belongs to no run; expected {FILE_NAME} in the folder or above it")


def add_train_options(parser: argparse.ArgumentParser, runs: Path) -> None:
    """Add the options that `read_train_options` reads."""
    choice = parser.add_mutually_exclusive_group()
    for name, about in PRESETS.items():
        flag = f"--{name.replace('_', '-')}"
        choice.add_argument(flag, dest="preset", action="store_const", const=name, help=about)
    choice.add_argument("--config", type=path, metavar="FILE", help="your own configuration")
    parser.add_argument("--resume", type=path, metavar="CHECKPOINT", help="continue a run: its folder, or a checkpoint")
    parser.add_argument(
        "--data",
        type=file_or_dataset,
        nargs="+",
        metavar="FILE",
        help="records for all stages, instead of the configuration's",
    )
    parser.add_argument("--connector", choices=("patches", "embedding"), help="the language model's input for an image")
    parser.add_argument(
        "--lora",
        type=COUNT,
        nargs="?",
        const=LORA.rank,
        metavar="RANK",
        help=f"train low-rank adapters of the language model, by default of rank {LORA.rank}",
    )
    storage = parser.add_mutually_exclusive_group()
    for bits, weights in ((8, "int8"), (4, "nf4")):
        storage.add_argument(
            f"--{bits}bit",
            dest="weights",
            action="store_const",
            const=weights,
            help=f"store the language model's frozen weights in {bits} bits ({weights}); needs adapters",
        )
    parser.add_argument("--tracker", choices=TRACKERS, help="send the metrics there, too (pip install wandb)")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad records out instead of refusing the file")
    add_record_options(parser)
    parser.add_argument("--output", type=path, metavar="FOLDER", help=f"default: {runs}/ and the configuration's name")


def add_record_options(parser: argparse.ArgumentParser, *, several_answers: bool = True) -> None:
    """Add the options that state what a file of records may hold, as `RecordRules` does."""
    parser.add_argument(
        "--outside-images", action="store_true", help="accept absolute names of images, and names with .."
    )
    if several_answers:
        parser.add_argument(
            "--several-answers", action="store_true", help="accept different answers to one question about one image"
        )
