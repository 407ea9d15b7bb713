"""Talk to one of the two chatbots; the first time, it is trained (about a minute each).

    python -m apps.chatbots.chat expert
    python -m apps.chatbots.chat teacher
    echo "what is a patch?" | python -m apps.chatbots.chat expert

An empty line or Ctrl-D ends the talk. To the teacher, `new` shows another scene, and a question alone is about the last one.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from apps.chatbots.bots import KINDS, Bot, load_bot, make_expert, make_teacher
from apps.chatbots.conversations import answers_to
from apps.chatbots.dialogues import dialogue_at
from apps.chatbots.facts import TEXTS
from apps.chatbots.train import RUNS
from shared.cli import command_line
from shared.errors import CourseError


def open_bot(kind: str, run: Path | None) -> Bot:
    """The bot of a run; without one the lesson's own, made now if it has not been. Raises CourseError as making and loading do."""
    folder = run or RUNS / kind
    if run is None and not (folder / "bot.json").exists():
        print(f"training the {kind} first; it is kept in {folder}", file=sys.stderr)
        return make_expert(TEXTS, folder) if kind == "expert" else make_teacher(folder)
    bot = load_bot(folder)
    if bot.kind != kind:
        raise CourseError(f"{folder} holds the {bot.kind}, not the {kind}")
    return bot


def ask_expert(bot: Bot, question: str) -> str:
    """The expert knows the field, not the conversation: each question stands on its own, in lower case as it was taught."""
    return answers_to(bot.model, bot.template, [question.lower()])[0]


class Lesson:
    """A talk with the teacher: there is a scene in view, and questions are about it."""

    def __init__(self, bot: Bot):
        self.bot, self.number, self.scene = bot, 0, ""

    def show(self) -> str:
        """Put another scene in view."""
        shown = dialogue_at("validation", 1, self.number).question
        self.scene, question = shown.split(". ", 1)
        self.number += 1
        return f"in view: {self.scene}.\nyou may ask: {question}"

    def ask(self, text: str) -> str:
        """The answer to “scene. question?”, or to a question about the scene in view."""
        text = text.lower()
        if ". " in text:
            self.scene, text = text.split(". ", 1)
        return answers_to(self.bot.model, self.bot.template, [f"{self.scene}. {text}"])[0]


def talk_to(bot: Bot, read: Callable[[], str], say: Callable[[str], None]) -> None:
    """Question and answer until an empty line or the end of what is typed."""
    lesson = Lesson(bot)
    if bot.kind == "teacher":
        say(lesson.show())
    while True:
        try:
            text = read().strip()
        except EOFError:
            return
        if not text:
            return
        if bot.kind == "teacher":
            say(lesson.show() if text == "new" else lesson.ask(text))
        else:
            say(ask_expert(bot, text))


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--run", type=Path, help="a bot that train.py has left; the lesson's own when left out")
    asked = parser.parse_args()
    prompt = "> " if sys.stdin.isatty() else ""
    try:
        talk_to(open_bot(asked.kind, asked.run), lambda: input(prompt), print)
    except KeyboardInterrupt:  # the usual way to end a chat
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
