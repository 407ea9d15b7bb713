"""Train an assistant, evaluate it, serve it, chat with it.

    python -m apps.assistant train --debug              # the toy world, this computer, a minute or two
    python -m apps.assistant train --small-scale        # CLIP and Qwen2.5-0.5B: LoRA on 8-bit weights
    python -m apps.assistant train --config FILE [--data FILE …] [--output FOLDER]
    python -m apps.assistant train --resume runs/assistant/debug
    torchrun --nproc-per-node 8 -m apps.assistant train --full-scale
    python -m apps.assistant evaluate FOLDER [--captions FILE|coco:SPLIT] [--questions FILE|vqa:SPLIT]
    python -m apps.assistant serve [FOLDER] [--port 8000]
    python -m apps.assistant chat [FOLDER] [--image FILE]
    python -m apps.assistant check-data FILE [--config CONFIG]    # list the bad records of a training file
    python -m apps.assistant write-toy FOLDER           # write the toy world as training files

FOLDER is a folder that `train` wrote. Without one, `serve` and `chat` use the model in data/checkpoints.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from apps.assistant import config as configurations
from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.config import CONFIGURATIONS, FILE_NAME, Configuration
from apps.assistant.evaluate import caption_items, evaluate, question_items
from apps.assistant.model_folder import read_generation_settings
from apps.assistant.records import read_records, report
from apps.assistant.toy_files import TEST_FILES, TRAINING_FILES, write_toy_world
from apps.assistant.train import TOY_WORLD, empty_training_data, train_assistant
from apps.assistant.training_data import check_records
from shared.atomic import write_atomically
from shared.cli import command_line
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.distributed import is_main
from shared.errors import CourseError
from shared.serving import Message, Settings, UnsupportedRequest, serve

RUNS = Path("runs/assistant")
CHECKPOINT = CHECKPOINTS_FOLDER / "lesson_05_llava"
DEBUG_RUN = RUNS / "debug"
PRESETS = {
    "debug": "a small model of the toy world, without downloads",
    "small_scale": "CLIP and Qwen2.5-0.5B on one small GPU",
    "full_scale": "the same, trained in full on several GPUs",
}


def train_command(options: argparse.Namespace) -> None:
    """Train an assistant."""
    configuration, output, resume = read_train_options(options)
    folder = train_assistant(configuration, output, resume=resume)
    if is_main():
        print(f"the assistant is in {folder}")


def read_train_options(options: argparse.Namespace) -> tuple[Configuration, Path, bool]:
    """Return the configuration, the output folder and whether to resume. Raises CourseError for a contradiction."""
    file = options.config or (CONFIGURATIONS / f"{options.preset}.json" if options.preset else None)
    if options.resume is None and file is None:
        raise CourseError(
            "nothing to train; use --debug, --small-scale, --full-scale, --config FILE or --resume CHECKPOINT"
        )
    run = find_run(options.resume) if options.resume else None
    output = options.output or run or RUNS / file.stem
    if run and output.resolve() != run.resolve():
        raise CourseError(f"the run of {options.resume} continues in its own folder, {run}; leave out --output")
    earlier = configurations.load(output / FILE_NAME) if run else None
    configuration = configurations.load(file) if file else earlier
    assert configuration is not None
    if options.data:
        configuration = configuration.with_data(*options.data)
    if options.connector:
        configuration = replace(configuration, model=replace(configuration.model, connector=options.connector))
    if earlier is not None and configuration != earlier:
        raise CourseError(
            f"the run in {output} has another configuration ({output / FILE_NAME}); continue it with --resume alone, "
            "or start a new run without --resume"
        )
    return configuration, output, run is not None


def find_run(checkpoint: Path) -> Path:
    """Return the run's folder, given the folder itself, one of its stages, or a checkpoint in a stage."""
    for folder in (checkpoint, *list(checkpoint.parents)[:2]):
        if (folder / FILE_NAME).exists():
            return folder
    raise CourseError(f"{checkpoint} belongs to no run; expected {FILE_NAME} in the folder or above it")


def evaluate_command(options: argparse.Namespace) -> None:
    """Score an assistant's captions and answers."""
    started = time.monotonic()
    captions, questions, toy_world = options.captions, options.questions, options.folder / TOY_WORLD
    if not captions and not questions:
        if not toy_world.is_dir():
            raise CourseError("nothing to evaluate on; use --captions FILE, --questions FILE or both")
        captions, questions = (str(toy_world / TEST_FILES[name]) for name in ("captions", "questions"))
    folder = model_folder_in(options.folder)
    prompt = read_generation_settings(folder).caption_prompt
    results = evaluate(
        Assistant.from_folder(folder, device=options.device),
        caption_items(captions, prompt)[: options.limit] if captions else [],
        question_items(questions, prompt)[: options.limit] if questions else [],
        max_new_tokens=options.max_new_tokens,
    )
    record = {"model": str(folder), "captions of": captions, "questions of": questions}
    record |= {"seconds": round(time.monotonic() - started, 1)} | results
    file = options.report or options.folder / "evaluation.json"
    write_atomically(file, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    for task, result in results.items():
        print(f"{task}: {result['count']:,}")
        for name, score in result["scores"].items():
            print(f"  {name:<20} {score:.3f}")
    print(f"all answers are in {file}")


def model_folder_in(folder: Path) -> Path:
    """Return the folder of the model itself, also when the folder of its run is given."""
    return folder / "model" if (folder / "model" / "config.json").exists() else folder


def serve_command(options: argparse.Namespace) -> None:
    """Serve an assistant over HTTP."""
    folder = find_assistant(options.folder)
    settings = Settings(caption_prompt=read_generation_settings(folder).caption_prompt, truncation=options.truncation)
    print(f"{folder}", file=sys.stderr, flush=True)
    serve(
        lambda: Assistant.from_folder(folder, device=options.device),
        host=options.host,
        port=options.port,
        settings=settings,
    )


def find_assistant(folder: Path | None) -> Path:
    """Return the folder of the requested model. Raises CourseError when there is none."""
    for candidate in (CHECKPOINT, DEBUG_RUN) if folder is None else (folder,):
        if (model_folder_in(candidate) / "config.json").exists():
            return model_folder_in(candidate)
    if folder is not None:
        raise CourseError(f"{folder} holds no assistant; expected a folder that `train` wrote, with its config.json")
    raise CourseError(
        f"neither {CHECKPOINT} nor {DEBUG_RUN} holds an assistant; make the first (make checkpoint-5), train the "
        "second (python -m apps.assistant train --debug), or name a folder"
    )


def chat_command(options: argparse.Namespace) -> None:
    """Chat with an assistant in the terminal."""
    assistant = Assistant.from_folder(find_assistant(options.folder), device=options.device)
    prompt = "> " if sys.stdin.isatty() else ""
    chat(assistant, options.image, lambda: input(prompt), print)


def chat(assistant: Assistant, images: Sequence[Path], read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Answer message after message until an empty line or the end of the input; the first one has the images."""
    history: tuple[Message, ...] = ()
    while True:
        try:
            text = read().strip()
        except EOFError:
            return
        if not text:
            return
        try:
            reply, history = assistant.chat(text, images=() if history else images, history=history)
        except UnsupportedRequest as error:
            reply = f"error: {error}"
        write(reply)


def check_command(options: argparse.Namespace) -> int:
    """List the bad records of a training file; the exit status is 1 if there are some.

    With a configuration these are the records that its training would refuse, those too long for its context included.
    """
    if options.config is None:
        good, bad = read_records(options.file, options.images)
    else:
        config = configurations.load(options.config).model
        good, bad = check_records(options.file, options.images, empty_training_data(config, build_model(config)))
    print(report(options.file, len(good), bad))
    return 1 if bad else 0


def write_toy_command(options: argparse.Namespace) -> None:
    """Write the toy world as training files."""
    write_toy_world(options.folder, options.examples, size=options.size)
    print(f"{options.examples:,} training records in each of {', '.join(TRAINING_FILES.values())}, in {options.folder}")


# ── The command line ──────────────────────────────────────────────────────────────────────────────────────────────────


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.assistant", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(function=function)
        return command

    _add_train_options(add("train", train_command))
    command = add("evaluate", evaluate_command)
    command.add_argument("folder", type=Path, help="the folder of an assistant or of its run")
    command.add_argument("--captions", metavar="FILE", help="images with captions, or coco:SPLIT")
    command.add_argument("--questions", metavar="FILE", help="images with questions and answers, or vqa:SPLIT")
    command.add_argument("--report", type=Path, metavar="FILE", help="default: evaluation.json in the folder")
    command.add_argument("--limit", type=int, help="largest number of captions and of questions")
    command.add_argument("--max-new-tokens", type=int, default=64)
    command.add_argument("--device", default="cpu")
    for name, function in (("serve", serve_command), ("chat", chat_command)):
        command = add(name, function)
        command.add_argument("folder", type=Path, nargs="?")
        command.add_argument("--device", default="cpu")
        if name == "serve":
            command.add_argument("--port", type=int, default=8000)
            command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 accepts connections from everywhere")
            command.add_argument(
                "--truncation",
                choices=("disabled", "auto"),
                default=Settings.truncation,
                help="auto: leave out the oldest turns of a conversation that is too long",
            )
        else:
            command.add_argument("--image", type=Path, nargs="+", default=(), help="images of the first message")
    command = add("check-data", check_command)
    command.add_argument("file", type=Path)
    command.add_argument("--images", type=Path, help="folder of the images; default: the folder of the file")
    command.add_argument("--config", type=Path, metavar="CONFIG", help="also check the lengths, for this configuration")
    command = add("write-toy", write_toy_command)
    command.add_argument("folder", type=Path)
    command.add_argument("--examples", type=int, default=1000)
    command.add_argument("--size", type=int, default=32, help="side of an image in pixels")
    return parser.parse_args(arguments)


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    for name, about in PRESETS.items():
        flag = f"--{name.replace('_', '-')}"
        choice.add_argument(flag, dest="preset", action="store_const", const=name, help=about)
    choice.add_argument("--config", type=Path, metavar="FILE", help="your own configuration")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="continue a run: its folder, or a checkpoint")
    parser.add_argument(
        "--data", nargs="+", metavar="FILE", help="records for all stages, instead of the configuration's"
    )
    parser.add_argument("--connector", choices=("patches", "embedding"), help="the language model's input for an image")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"default: {RUNS}/ and the configuration's name")


@command_line("interrupted; the work is saved, continue with --resume")
def main(arguments: Sequence[str] | None = None) -> int | None:
    options = parse_options(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main())
