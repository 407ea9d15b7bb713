"""Pictures with captions: Flickr8k as it comes, or a folder of one's own.

    flickr8k/Images/1000268201_693b08cb0e.jpg       and   flickr8k/captions.txt          (image,caption: one line a caption)
    flickr8k/Flicker8k_Dataset/…                    and   flickr8k/Flickr8k.token.txt    (image#0 ⇥ caption)

Flickr8k (Hodosh, Young, Hockenmaier 2013) is given for non-commercial research and education, on request, by the
University of Illinois; so nothing is fetched here. Put the folder into `data/cache` or `$MULTIMODAL_DATA`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data.datasets.download import data_folder
from data.datasets.image_folder import read_image
from shared.errors import CourseError

PICTURES = ("Images", "images", "Flicker8k_Dataset", ".")
TABLES = ("captions.txt", "captions.csv", "Flickr8k.token.txt")


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures, each with one or more captions: some to train on, some that are never trained on."""

    name: str
    train_images: UInt8[np.ndarray, "train size size 3"]
    train_captions: tuple[tuple[str, ...], ...]
    test_images: UInt8[np.ndarray, "test size size 3"]
    test_captions: tuple[tuple[str, ...], ...]


def flickr8k(size: int) -> CaptionedImages:
    """Flickr8k from the data folder. Raises CourseError, saying where to put it, when it is not there."""
    folder = data_folder() / "flickr8k"
    if not folder.is_dir():
        raise CourseError(
            f"{folder} is not there. Flickr8k is given on request only, for non-commercial research and education: ask for "
            "it at the University of Illinois, and unpack it there (Images/ and captions.txt)"
        )
    return captioned_folder(folder, size)


def captioned_folder(folder: Path | str, size: int, *, held_out: float = 0.1) -> CaptionedImages:
    """The captioned pictures of a folder, each brought to size × size; the last by name are held out.

    Raises CourseError when there is no table of captions, a picture is missing or damaged, or there are fewer than two.
    """
    folder = Path(folder)
    captions = _captions(folder)
    names = sorted(captions)
    count = max(1, round(len(names) * held_out))
    if len(names) < 2:
        raise CourseError(f"{folder} has captions for {len(names)} pictures; two are the least, one of them held out")
    images = np.stack([read_image(_picture(folder, name), size) for name in names])
    said = tuple(tuple(captions[name]) for name in names)
    return CaptionedImages(folder.name, images[:-count], said[:-count], images[-count:], said[-count:])


def _captions(folder: Path) -> dict[str, list[str]]:
    """Every picture's captions, by its name."""
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        raise CourseError(f"{folder} holds no table of captions; expected one of {', '.join(TABLES)}")
    found: dict[str, list[str]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        if table.suffix == ".txt" and ".token" in table.name:
            rows = (line.rstrip("\r\n").split("\t", 1) for line in file if line.strip())
        else:
            rows = (row for row in csv.reader(file) if row and row != ["image", "caption"])
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise CourseError(f"{table}, row {number}: expected a picture's name and a caption, not {row}")
            found.setdefault(row[0].split("#")[0], []).append(row[1].strip())
    return found


def _picture(folder: Path, name: str) -> Path:
    for place in PICTURES:
        if (folder / place / name).is_file():
            return folder / place / name
    raise CourseError(f"{folder} has a caption for {name}, but no such picture in {', '.join(PICTURES)}")
