"""Run the pure-Python references of all parts, one after another, or of one named part.

python -S -m lessons.lesson_00_foundations.reference [autograd | cnn | recurrent | vae | decoder] [--quick] [--seed N]
"""

import sys
from importlib import import_module

from shared.stdlib.output import run_program

PARTS = ("autograd", "cnn", "recurrent", "vae", "decoder")


def main() -> None:
    arguments = sys.argv[1:]
    named_parts = [argument for argument in arguments[:1] if not argument.startswith("-")]
    if unknown := [name for name in named_parts if name not in PARTS]:
        sys.exit(f"error: lesson 0 has no part {unknown[0]!r}; choose one of {', '.join(PARTS)}")
    for part in named_parts or PARTS:
        print(f"\n── {part} {'─' * (100 - len(part))}\n", flush=True)
        # Each part parses its own options.
        sys.argv = [f"{part}.reference", *arguments[len(named_parts) :]]
        import_module(f"lessons.lesson_00_foundations.{part}.reference").main()


if __name__ == "__main__":
    run_program(main)
