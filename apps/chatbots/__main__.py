"""Train a chatbot, evaluate it, talk to it.

    python -m apps.chatbots train expert               # on the app's own texts
    python -m apps.chatbots train expert MY_TEXTS      # on a folder of your own .txt files
    python -m apps.chatbots train teacher
    python -m apps.chatbots evaluate expert
    python -m apps.chatbots chat expert                # trains it first, if necessary (about a minute)
    echo "what is a patch?" | python -m apps.chatbots chat expert

Each chatbot is written to runs/chatbots/NAME, or to the folder given with --run. In a chat an empty line or Ctrl-D ends
the conversation; the teacher shows another scene after the line `new`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from apps.chatbots.chat import chat
from apps.chatbots.chatbot import KINDS, RECORD, Chatbot, load_chatbot, make_expert, make_teacher
from apps.chatbots.expert import ExpertRecipe, evaluate_expert, expert_data
from apps.chatbots.facts import TEXTS, read_texts
from apps.chatbots.teacher import TeacherRecipe, evaluate_teacher
from shared.cli import command_line
from shared.errors import CourseError
from shared.options import COUNT, SEED, path
from shared.training import RunOptions
from shared.training.trackers import TRACKERS, require_tracker

RUNS = Path("runs/chatbots")


def train(options: argparse.Namespace) -> None:
    """Train a chatbot and write it to its run folder."""
    folder = run_folder(options)
    run = RunOptions(resume=options.resume, device=options.device, tracker=options.tracker)
    require_tracker(options.tracker)
    if options.kind == "teacher":
        teacher = TeacherRecipe()
        if options.steps:
            teacher = replace(teacher, answers=replace(teacher.answers, steps=options.steps))
        make_teacher(teacher, folder, seed=options.seed, run=run)
    else:
        data = expert_data(read_texts(options.texts or TEXTS))
        recipe = ExpertRecipe(options.steps) if options.steps else ExpertRecipe()
        make_expert(data, recipe, folder, seed=options.seed, run=run)
        print(f"{len(data.sentences)} sentences, {len(data.questions)} training questions")
    texts = f" {options.texts}" if options.texts else ""
    print(f"evaluate it: python -m apps.chatbots evaluate {options.kind}{texts}")
    print(f"talk to it:  python -m apps.chatbots chat {options.kind} --run {folder}")


def evaluate(options: argparse.Namespace) -> None:
    """Print the accuracy of a trained chatbot on its test sets."""
    bot = open_chatbot(options.kind, run_folder(options))
    if options.kind == "teacher":
        for name, value in evaluate_teacher(bot.model, bot.template).items():
            print(f"{name:10}{value:8.2f}" if name == "lead" else f"{name:10}{value:8.1%}")
        return
    results = evaluate_expert(
        bot.model, bot.template, expert_data(read_texts(options.texts or TEXTS)), exam=not options.texts
    )
    print(f"{'exact-match accuracy':22}{'questions':>10}{'expert':>8}{'word matching':>15}")
    for name, row in results.items():
        print(f"{name.replace('_', ' '):22}{row['questions']:10}{row['accuracy']:8.1%}{row['word_matching']:15.1%}")


def talk(options: argparse.Namespace) -> None:
    """Open a conversation in the terminal; train the app's own chatbot first when it does not exist."""
    folder = run_folder(options)
    if options.run is None and not (folder / RECORD).exists():
        print(f"no {options.kind} in {folder} yet: training it first", file=sys.stderr)
        if options.kind == "teacher":
            make_teacher(TeacherRecipe(), folder)
        else:
            make_expert(expert_data(read_texts(TEXTS)), ExpertRecipe(), folder)
    prompt = "> " if sys.stdin.isatty() else ""
    try:
        chat(open_chatbot(options.kind, folder), lambda: input(prompt), print)
    except KeyboardInterrupt:
        print()


def run_folder(options: argparse.Namespace) -> Path:
    """Return the folder given with --run, else runs/chatbots/NAME."""
    if options.run:
        return options.run
    texts = getattr(options, "texts", None)
    return RUNS / (texts.resolve().name if texts else options.kind)


def open_chatbot(kind: str, folder: Path) -> Chatbot:
    """Load a chatbot. Raise CourseError when the folder holds none, or one of the other kind."""
    bot = load_chatbot(folder)
    if bot.kind != kind:
        raise CourseError(f"{folder} holds the {bot.kind}, not the {kind}")
    return bot


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.chatbots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("train", train), ("evaluate", evaluate), ("chat", talk)):
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("kind", choices=KINDS)
        command.add_argument("--run", type=path, help=f"folder of the chatbot; default {RUNS}/NAME")
        if name != "chat":
            command.add_argument("texts", nargs="?", type=path, help="for an expert: a folder of .txt files")
        if name == "train":
            command.add_argument("--steps", type=COUNT, help="of supervised fine-tuning")
            command.add_argument("--seed", type=SEED, default=0)
            command.add_argument("--device", default="cpu")
            command.add_argument("--tracker", choices=TRACKERS, help="send the metrics there, too")
            command.add_argument("--resume", action="store_true", help="continue an interrupted run")
    options = parser.parse_args(arguments)
    if options.kind == "teacher" and getattr(options, "texts", None):
        parser.error("the teacher is trained on the toy world, not on texts; use an expert for texts")
    return options


@command_line()
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    options.function(options)


if __name__ == "__main__":
    sys.exit(main())
