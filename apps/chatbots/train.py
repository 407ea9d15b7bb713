"""Make a chatbot.

    python -m apps.chatbots.train expert              # of the lesson's own texts
    python -m apps.chatbots.train expert MY_TEXTS     # of a folder of one's own .txt files
    python -m apps.chatbots.train teacher

It is left in runs/chatbots/NAME (or in --run), for chat.py beside this file. --resume goes on where it was stopped.
"""

import argparse
import sys
from pathlib import Path

from apps.chatbots.bots import KINDS, make_expert, make_teacher
from apps.chatbots.expert import lessons_from, share_right
from apps.chatbots.facts import TEXTS, read_texts
from shared.cli import command_line

RUNS = Path("runs/chatbots")


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("texts", nargs="?", type=Path, help="for an expert: a folder of .txt files")
    parser.add_argument("--run", type=Path, help=f"where to leave it; {RUNS}/NAME when left out")
    parser.add_argument("--steps", type=int, help="of supervised fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on where it was stopped")
    asked = parser.parse_args()
    if asked.kind == "teacher" and asked.texts:
        parser.error("the teacher teaches the toy world and reads no texts; an expert does")
    run = asked.run or RUNS / (asked.texts.resolve().name if asked.texts else asked.kind)
    settings = {"seed": asked.seed, "resume": asked.resume, "device": asked.device}
    settings |= {"steps": asked.steps} if asked.steps else {}
    if asked.kind == "teacher":
        make_teacher(run, **settings)
    else:
        texts = asked.texts or TEXTS
        bot, lessons = make_expert(texts, run, **settings), lessons_from(read_texts(texts))
        print(
            f"{len(lessons.read)} sentences read, {len(lessons.asked)} questions learned from; answered to the letter:"
        )
        for name in ("kept_wordings", "new_wordings", "read_only"):
            tests = getattr(lessons, name)
            if tests:
                print(
                    f"  {name.replace('_', ' '):15}{share_right(bot.model, bot.template, tests):6.0%}  of {len(tests)}"
                )
    print(f"talk to it: python -m apps.chatbots.chat {asked.kind} --run {run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
