"""Recommend a recipe for a vision-language model from published ablations, with the evidence and its confidence.

python -m lessons.lesson_07_recipes.recipe_picker --parameters 3B --images 10M
python -m lessons.lesson_07_recipes.recipe_picker --parameters 8B --training-tokens 500B --image-tokens 320 --evidence
"""

import argparse
import dataclasses
import json
import re
import sys
from functools import partial

from rich.console import Console
from rich.text import Text

from lessons.lesson_07_recipes.recipes.picker import MIN_IMAGE_TOKENS, Budget, Recipe, pick_recipe
from lessons.lesson_07_recipes.recipes.report import WIDTH, recipe_lines
from shared.cli import command_line, parse_whole_number
from shared.errors import CourseError

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def parse_size(name: str, text: str) -> float:
    """Return the number that a text such as 3B, 1.5M or 500000 spells. Raises CourseError, which names the argument."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMBT]?)", text.strip().upper())
    if not match:
        raise CourseError(f"{name} {text[:30]!r} is not a size; write it as 3B, 1.5M, 500K or 500000")
    return float(match[1]) * UNITS[match[2]]


def recipe_json(recipe: Recipe) -> str:
    """Return a recipe as JSON: the fields of its dataclasses, and of each verdict and paper what follows from them."""
    content = dataclasses.asdict(recipe)
    for axis, recommendation in zip(content["recommendations"], recipe.recommendations, strict=True):
        for entry, result in zip(axis["verdicts"], recommendation.verdicts, strict=True):
            entry |= {"setting": result.setting, "disagreement": result.disagreement}
            for paper, evidence in zip(entry["papers"], result.papers, strict=True):
                paper["vote"] = evidence.vote
                for row, comparison in zip(paper["comparisons"], evidence.comparisons, strict=True):
                    row |= {"effect": comparison.effect, "standard_error": comparison.standard_error}
    return json.dumps(content, indent=1, ensure_ascii=False)


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parameters = partial(parse_size, "parameters")
    parser.add_argument("--parameters", type=parameters, required=True, help="parameters of the whole model, as 3B")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--images", type=partial(parse_size, "images"), help="images to train on, as 10M")
    amount.add_argument(
        "--training-tokens",
        type=partial(parse_size, "training tokens"),
        help="visual tokens to train on, as 5B: counted as images of --image-tokens each",
    )
    parser.add_argument(
        "--image-tokens",
        type=partial(parse_whole_number, "image tokens", least=MIN_IMAGE_TOKENS),
        default=1024,
        help="tokens of the context that one image may take (default: 1024)",
    )
    parser.add_argument("--evidence", action="store_true", help="list every comparison behind the votes")
    parser.add_argument("--json", action="store_true", help="print the recipe and all of its evidence as JSON")
    options = parser.parse_args()
    images = options.images if options.images is not None else options.training_tokens / options.image_tokens
    recipe = pick_recipe(Budget(options.parameters, images, options.image_tokens))
    if options.json:
        print(recipe_json(recipe))
        return 0
    # Rich leaves out colors for a pipe, for NO_COLOR and for a terminal without them.
    console = Console(highlight=False, soft_wrap=True)
    for line in recipe_lines(recipe, details=options.evidence, width=max(40, min(console.width, WIDTH))):
        console.print(Text(line.text, line.style))
    return 0


if __name__ == "__main__":
    sys.exit(main())
