"""Split a user's images into training and held-out images: by their folders, or at random by a seed."""

from collections.abc import Sequence
from random import Random

from shared.errors import CourseError
from shared.text_files import normalize

TRAINING = ("train", "training")
HELD_OUT = (("test", "testing"), ("val", "valid", "validation"))
"""Names of folders of held-out images, compared without case; test images are preferred to validation images."""


def check_fraction(held_out: float) -> None:
    """Raise CourseError when this is no fraction of images that can be held out."""
    if not 0.0 <= held_out < 1.0:  # NaN too
        raise CourseError(f"the held-out fraction is {held_out}; expected 0 or more and less than 1")


def hold_out(count: int, held_out: float, seed: int, name: str) -> tuple[list[int], list[int]]:
    """Return the training rows and the held-out rows of `count` images, each ascending, drawn from the seed.

    At least one image is held out, and none if the fraction is 0.

    Raises CourseError, which calls the images `name`, when no training image would be left.
    """
    check_fraction(held_out)
    number = max(1, round(count * held_out)) if held_out else 0
    if number >= count:
        raise CourseError(f"{name} has {count} images: too few to hold out {held_out:.0%}")
    chosen = set(Random(seed).sample(range(count), number))
    return [row for row in range(count) if row not in chosen], sorted(chosen)


def find_split_folders(names: Sequence[str]) -> tuple[str, str | None] | None:
    """Return which of these folders have training and held-out images, or None when they are classes.

    They are a split when one is called train and another test or val (or as TRAINING and HELD_OUT list), in any case,
    or when train is the only folder; the second name is None then.

    Raises CourseError when two folders have the same role, or there are held-out images and no training images.
    """
    training, test, validation = (_only_one(names, words) for words in (TRAINING, *HELD_OUT))
    held_out = test or validation
    if training and held_out:
        return training, held_out
    if held_out and all(name in (test, validation) for name in names):
        raise CourseError(f"the folders are {', '.join(names)}; expected one called train, or one per class")
    return (training, None) if training and len(names) == 1 else None


def _only_one(names: Sequence[str], words: Sequence[str]) -> str | None:
    matches = [name for name in names if normalize(name).casefold() in words]
    if len(matches) > 1:
        raise CourseError(f"the folders {' and '.join(matches)} have the same role; rename or remove one")
    return matches[0] if matches else None
