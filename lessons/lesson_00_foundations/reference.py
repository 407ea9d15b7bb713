"""The references of all parts, in pure Python, one after another; or the one that is named.

python -S -m lessons.lesson_00_foundations.reference [autograd | cnn | recurrent | vae | decoder] [--quick] [--seed N]
"""

import sys
from importlib import import_module

PARTS = ("autograd", "cnn", "recurrent", "vae", "decoder")


def main() -> None:
    given = sys.argv[1:]
    named = [word for word in given[:1] if not word.startswith("-")]
    if unknown := [word for word in named if word not in PARTS]:
        sys.exit(f"error: lesson 0 has no part {unknown[0]!r}; choose one of {', '.join(PARTS)}")
    for part in named or PARTS:
        print(f"\n── {part} {'─' * (100 - len(part))}\n", flush=True)
        # Each part reads its options for itself.
        sys.argv = [f"{part}.reference", *given[len(named) :]]
        import_module(f"lessons.lesson_00_foundations.{part}.reference").main()


if __name__ == "__main__":
    main()
