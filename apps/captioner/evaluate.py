"""Score a captioner on the pictures of a folder that were held out when it learned: BLEU-1 to BLEU-4, CIDEr, ROUGE-L.

python -m apps.captioner.evaluate RUN PICTURES [--show 5]

Beside it stand the same captions dealt to the wrong pictures: what is left of the scores then owes nothing to looking.
"""

import argparse
import sys
from pathlib import Path

from apps.captioner.data import read_folder
from apps.captioner.measure import scores, written
from apps.captioner.run_folder import load_captioner, read_record
from shared.cli import command_line
from shared.errors import CourseError


def evaluate(
    run: Path, pictures: Path, *, device: str = "cpu"
) -> tuple[dict[str, float], dict[str, float], list[tuple[str, str]]]:
    """Scores of the held-out captions, scores of the same captions each given to the next picture, and (said, expected).

    Raises CourseError when the run or the folder can't be read, or only one picture is held out, which has no other to
    be mixed up with.
    """
    model, tokenizer = load_captioner(run)
    _, test = read_folder(pictures, model.config.eye.image_sides[0], held_out=read_record(run).held_out)
    if len(test.captions) < 2:
        raise CourseError(f"{pictures} has {len(test.captions)} picture held out; scores take two or more")
    said = written(model.to(device), tokenizer, test.pixels)
    dealt_wrong = [*said[1:], said[0]]
    shown = [(caption, people[0]) for caption, people in zip(said, test.captions, strict=True)]
    return scores(said, test.captions), scores(dealt_wrong, test.captions), shown


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that train.py has left")
    parser.add_argument("pictures", type=Path, help="the folder it has learned from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--show", type=int, default=5, help="so many captions beside what people said")
    asked = parser.parse_args()
    own, mixed_up, shown = evaluate(asked.run, asked.pictures, device=asked.device)
    print(f"{'':10}{'captioner':>12}{'mixed up':>12}")
    for name in own:
        print(f"{name:10}{own[name]:12.3f}{mixed_up[name]:12.3f}")
    for caption, expected in shown[: asked.show]:
        print(f"\nsaid      {caption}\nexpected  {expected}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
