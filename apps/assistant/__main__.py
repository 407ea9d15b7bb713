"""Train an assistant, evaluate it, serve it, chat with it.

    python -m apps.assistant train --debug              # the toy world, this computer, a minute or two
    python -m apps.assistant train --small-scale        # CLIP and Qwen2.5-0.5B: LoRA on 8-bit weights
    python -m apps.assistant train --debug --lora --8bit  # adapters on weights stored in 8 bits; or --4bit
    python -m apps.assistant train --config FILE [--data FILE …] [--output FOLDER] [--tracker wandb]
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
from pathlib import Path

import torch

from apps.assistant import config as configurations
from apps.assistant.assistant import Assistant
from apps.assistant.build import build_model
from apps.assistant.evaluate import caption_items, evaluate, question_items
from apps.assistant.model_folder import read_generation_settings
from apps.assistant.record_checks import RecordRules
from apps.assistant.records import read_records, report
from apps.assistant.toy_files import TEST_FILES, TRAINING_FILES, write_toy_world
from apps.assistant.train import TOY_WORLD, empty_training_data, train_assistant
from apps.assistant.train_options import add_record_options, add_train_options, read_train_options
from apps.assistant.training_data import check_records
from shared.atomic import write_atomically
from shared.cli import command_line
from shared.course.checkpoint import CHECKPOINTS_FOLDER
from shared.devices import usable_device
from shared.distributed import is_main
from shared.errors import CourseError
from shared.options import COUNT, PORT, file_or_dataset, path
from shared.serving import Message, Settings, UnsupportedRequest, serve

RUNS = Path("runs/assistant")
CHECKPOINT = CHECKPOINTS_FOLDER / "lesson_05_llava"
DEBUG_RUN = RUNS / "debug"


def train_command(options: argparse.Namespace) -> None:
    """Train an assistant."""
    configuration, output, resume = read_train_options(options, RUNS)
    folder = train_assistant(configuration, output, resume=resume)
    if is_main():
        print(f"the assistant is in {folder}")


def evaluate_command(options: argparse.Namespace) -> None:
    """Score an assistant's captions and answers."""
    started = time.monotonic()
    captions, questions, toy_world = options.captions, options.questions, options.folder / TOY_WORLD
    if not captions and not questions:
        if not toy_world.is_dir():
            raise CourseError("nothing to evaluate on; use --captions FILE, --questions FILE or both")
        captions, questions = (str(toy_world / TEST_FILES[name]) for name in ("captions", "questions"))
    folder, file = model_folder_in(options.folder), options.report or options.folder / "evaluation.json"
    if file.is_dir():
        raise CourseError(f"{file} is a folder; --report takes the name of a file")
    prompt = read_generation_settings(folder).caption_prompt
    rules = RecordRules(options.outside_images, several_answers=True)
    caption_set = caption_items(captions, prompt, rules)[: options.limit] if captions else []
    question_set = question_items(questions, prompt, rules)[: options.limit] if questions else []
    if not caption_set and not question_set:
        raise CourseError("the files hold no captions and no questions; there is nothing to evaluate on")
    assistant = Assistant.from_folder(folder, device=options.device)
    results = evaluate(assistant, caption_set, question_set, max_new_tokens=options.max_new_tokens)
    record = {"model": str(folder), "captions of": captions, "questions of": questions}
    record |= {"seconds": round(time.monotonic() - started, 1)} | results
    for task, result in results.items():
        print(f"{task}: {result['count']:,}")
        for name, score in result["scores"].items():
            print(f"  {name:<20} {score:.3f}")
    write_atomically(file, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    print(f"all answers are in {file}")


def model_folder_in(folder: Path) -> Path:
    """Return the folder of the model itself, also when the folder of its run is given."""
    return folder / "model" if os.path.exists(folder / "model" / "config.json") else folder


def serve_command(options: argparse.Namespace) -> None:
    """Serve an assistant over HTTP."""
    folder = find_assistant(options.folder)
    usable_device(options.device)  # before the port is open
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
        if os.path.exists(model_folder_in(candidate) / "config.json"):
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
    rules = RecordRules(options.outside_images, options.several_answers)
    if options.config is None:
        good, bad = read_records(options.file, options.images, rules=rules)
    else:
        config = configurations.load(options.config)
        rules = RecordRules(
            rules.outside_images or config.outside_images, rules.several_answers or config.several_answers
        )
        data = empty_training_data(config.model, build_model(config.model))
        good, bad = check_records(options.file, options.images, data, rules=rules)
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

    add_train_options(add("train", train_command), RUNS)
    command = add("evaluate", evaluate_command)
    command.add_argument("folder", type=path, help="the folder of an assistant or of its run")
    command.add_argument("--captions", type=file_or_dataset, metavar="FILE", help="images with captions, or coco:SPLIT")
    command.add_argument(
        "--questions", type=file_or_dataset, metavar="FILE", help="images with questions and answers, or vqa:SPLIT"
    )
    command.add_argument("--report", type=path, metavar="FILE", help="default: evaluation.json in the folder")
    command.add_argument("--limit", type=COUNT, help="largest number of captions and of questions")
    command.add_argument("--max-new-tokens", type=COUNT, default=64)
    command.add_argument("--device", default="cpu")
    add_record_options(command, several_answers=False)
    for name, function in (("serve", serve_command), ("chat", chat_command)):
        command = add(name, function)
        command.add_argument("folder", type=path, nargs="?")
        command.add_argument("--device", default="cpu")
        if name == "serve":
            command.add_argument("--port", type=PORT, default=8000)
            command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 accepts connections from everywhere")
            command.add_argument(
                "--truncation",
                choices=("disabled", "auto"),
                default=Settings.truncation,
                help="auto: leave out the oldest turns of a conversation that is too long",
            )
        else:
            command.add_argument("--image", type=path, nargs="+", default=(), help="images of the first message")
    command = add("check-data", check_command)
    command.add_argument("file", type=path)
    command.add_argument("--images", type=path, help="folder of the images; default: the folder of the file")
    command.add_argument("--config", type=path, metavar="CONFIG", help="also check the lengths, for this configuration")
    add_record_options(command)
    command = add("write-toy", write_toy_command)
    command.add_argument("folder", type=path)
    command.add_argument("--examples", type=COUNT, default=1000)
    command.add_argument("--size", type=COUNT, default=32, help="side of an image in pixels")
    return parser.parse_args(arguments)


@command_line("interrupted; the work is saved, continue with --resume")
def main(arguments: Sequence[str] | None = None) -> int | None:
    options = parse_options(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main())
