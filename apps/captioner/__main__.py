"""Train a captioner, evaluate it, caption images, serve it.

    python -m apps.captioner write-toy FOLDER                          # captioned toy-world images, to try the rest
    python -m apps.captioner train IMAGES                              # the small preset, on any machine
    python -m apps.captioner train IMAGES --preset full --device cuda --precision bfloat16
    python -m apps.captioner train IMAGES --resume                     # continue an interrupted run
    python -m apps.captioner train --toy-world [--blind]               # what results.json records
    python -m apps.captioner evaluate RUN [IMAGES]                     # without IMAGES: on the toy world
    python -m apps.captioner caption RUN IMAGE [IMAGE …]
    python -m apps.captioner serve RUN

A run is written to runs/captioner/NAME, or to the folder given with --run.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from apps.captioner.captions import caption_files
from apps.captioner.config import PRESETS
from apps.captioner.data import JSON
from apps.captioner.evaluate import evaluate_on_folder, evaluate_on_toy_world, recorded_results
from apps.captioner.model import parameter_counts
from apps.captioner.run_folder import read_record
from apps.captioner.served_captioner import PROMPT, ServedCaptioner
from apps.captioner.toy_world import write_folder
from apps.captioner.train import FolderRecipe, ToyWorldRecipe, train_on_folder, train_on_toy_world
from shared.cli import command_line
from shared.devices import usable_device
from shared.distributed import is_main
from shared.errors import CourseError
from shared.options import COUNT, FRACTION, PORT, POSITIVE, SEED, path, whole_number
from shared.serving import Settings, serve
from shared.training import RunOptions
from shared.training.trackers import TRACKERS, require_tracker
from shared.transformer import Sampling

RUNS = Path("runs/captioner")


def write_toy(options: argparse.Namespace) -> None:
    """Write a folder of captioned toy-world images."""
    write_folder(options.folder, count=options.count, size=options.size)
    print(f"{options.count} images and {JSON} in {options.folder}")


def train(options: argparse.Namespace) -> None:
    """Train a captioner and write its run folder."""
    run = RunOptions(resume=options.resume, device=options.device, tracker=options.tracker)
    usable_device(options.device)  # before the images are read
    require_tracker(options.tracker)
    if options.toy_world:
        name = "toy-world-blind" if options.blind else "toy-world"
        toy_recipe = ToyWorldRecipe(vision_encoder=options.vision_encoder, blind=options.blind)
        if options.steps:
            toy_recipe = ToyWorldRecipe(options.steps, vision_encoder=options.vision_encoder, blind=options.blind)
        folder = options.run or RUNS / name
        result = train_on_toy_world(folder, toy_recipe, seed=options.seed, run=run)
    else:
        recipe = FolderRecipe(
            options.preset,
            options.steps or FolderRecipe.steps,
            options.batch_size,
            options.learning_rate,
            options.held_out,
            options.precision,
        )
        folder = options.run or RUNS / options.images.resolve().name
        result = train_on_folder(options.images, folder, recipe, seed=options.seed, run=run)
    if is_main():
        last = result.history[-1]
        print(f"{parameter_counts(result.model)['all']:,} weights, {result.steps} steps, loss {last['loss']:.3f}")
        scores = {name.split("/")[1]: value for name, value in last.items() if name.startswith("evaluation/")}
        scored = "training images" if not options.toy_world and options.held_out == 0 else "held out"
        print(f"{scored}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        print(f"caption an image: python -m apps.captioner caption {folder} IMAGE")


def evaluate(options: argparse.Namespace) -> None:
    """Score a captioner on held-out images or on the toy world."""
    if options.images is None:
        results = evaluate_on_toy_world(options.run_folder, device=options.device)
        column = "blind" if read_record(options.run_folder).blind else "captioner"
        print(f"{'':15}" + "".join(f"{name:>22}" for name in results) + f"{'recorded, unseen':>22}")
        recorded = {each["name"]: each[column] for each in recorded_results()["measurements"]}
        for score in results["unseen combinations"]:
            values = "".join(f"{each[score]:22.3f}" for each in results.values())
            past = recorded.get(score)
            print(f"{score:15}{values}" + (f"{min(past):14.3f} – {max(past):.3f}" if past else ""))
        return
    scores = evaluate_on_folder(options.run_folder, options.images, device=options.device)
    print(f"{'':10}{'captioner':>12}{'shuffled':>12}")
    for name in scores.captioner:
        print(f"{name:10}{scores.captioner[name]:12.3f}{scores.shuffled[name]:12.3f}")
    for caption, reference in scores.examples[: options.show]:
        print(f"\ncaption    {caption}\nreference  {reference}")


def caption(options: argparse.Namespace) -> None:
    """Caption image files."""
    generator = torch.Generator().manual_seed(options.seed)
    try:
        sampling = Sampling(options.max_new_tokens, temperature=options.temperature, top_p=options.top_p)
    except ValueError as error:
        raise CourseError(str(error)) from error
    captions = caption_files(
        options.run_folder, options.images, device=options.device, sampling=sampling, generator=generator
    )
    for image, text in zip(options.images, captions, strict=True):
        print(f"{image}\t{text}")


def serve_captioner(options: argparse.Namespace) -> None:
    """Serve a captioner over HTTP."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    read_record(options.run_folder)
    usable_device(options.device)  # before the port is open
    settings = Settings(caption_prompt=PROMPT, max_new_tokens=64)
    serve(
        lambda: ServedCaptioner(options.run_folder, options.device),
        host=options.host,
        port=options.port,
        settings=settings,
    )


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.captioner", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    toy_parser = commands.add_parser("write-toy", help="write a folder of captioned toy-world images")
    toy_parser.set_defaults(function=write_toy)
    toy_parser.add_argument("folder", type=path)
    toy_parser.add_argument("--count", type=COUNT, default=16)
    toy_parser.add_argument("--size", type=COUNT, default=96, help="side of an image in pixels")
    _add_train_options(commands.add_parser("train", help="train a captioner"))
    for name, function, about in (
        ("evaluate", evaluate, "score a captioner on held-out images"),
        ("caption", caption, "caption image files"),
        ("serve", serve_captioner, "serve a captioner over HTTP"),
    ):
        command = commands.add_parser(name, help=about)
        command.set_defaults(function=function)
        command.add_argument("run_folder", type=path, metavar="RUN", help="a folder that `train` wrote")
        command.add_argument("--device", default="cpu")
        _add_command_options(name, command)
    options = parser.parse_args(arguments)
    if options.function is train and (options.images is None) != options.toy_world:
        parser.error("train needs either a folder of IMAGES or --toy-world")
    return options


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=train)
    parser.add_argument("images", type=path, nargs="?", help=f"a folder with images and captions.txt, .csv or {JSON}")
    parser.add_argument("--run", type=path, help=f"the folder to write; default {RUNS}/NAME")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="small")
    parser.add_argument("--steps", type=COUNT)
    parser.add_argument("--batch-size", type=COUNT, default=FolderRecipe.batch_size)
    parser.add_argument("--learning-rate", type=POSITIVE, help="the peak; default: the preset's own")
    parser.add_argument("--held-out", type=FRACTION, default=FolderRecipe.held_out, help="fraction of held-out images")
    parser.add_argument("--seed", type=SEED, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tracker", choices=TRACKERS, help="send the metrics there, too (pip install wandb)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--toy-world", action="store_true", help="train on the toy world instead of a folder")
    parser.add_argument("--blind", action="store_true", help="with --toy-world: gray images, the blind baseline")
    parser.add_argument("--vision-encoder", choices=("clip", "new"), default="clip", help="with --toy-world")


def _add_command_options(name: str, command: argparse.ArgumentParser) -> None:
    match name:
        case "evaluate":
            command.add_argument("images", type=path, nargs="?", help="the folder of the training; none: the toy world")
            command.add_argument(
                "--show", type=whole_number(), default=5, help="captions to print beside their references"
            )
        case "caption":
            command.add_argument("images", type=path, nargs="+")
            command.add_argument("--max-new-tokens", type=COUNT, default=64)
            command.add_argument("--temperature", type=float, default=0.0, help="0 takes the most likely token")
            command.add_argument("--top-p", type=float, help="nucleus sampling, with a temperature above 0")
            command.add_argument("--seed", type=SEED, default=0, help="of the sampling")
        case "serve":
            command.add_argument("--port", type=PORT, default=8000)
            command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 accepts connections from everywhere")


@command_line()
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    options.function(options)


if __name__ == "__main__":
    sys.exit(main())
