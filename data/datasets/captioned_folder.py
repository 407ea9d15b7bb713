"""Images with captions: Flickr8k as distributed, or your own folder.

    flickr8k/Images/1000268201_693b08cb0e.jpg   and   flickr8k/captions.txt         (image,caption: one per line)
    flickr8k/Flicker8k_Dataset/…                and   flickr8k/Flickr8k.token.txt   (image#0 ⇥ caption)

Flickr8k (Hodosh, Young, Hockenmaier 2013) is distributed on request by the University of Illinois
for non-commercial research and education, so it is not downloaded here. Put the folder into `data/cache` or
`$MULTIMODAL_DATA`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data.datasets.download import data_folder
from data.datasets.image_folder import read_image
from shared.errors import CourseError

IMAGE_FOLDERS = ("Images", "images", "Flicker8k_Dataset", ".")
TABLES = ("captions.txt", "captions.csv", "Flickr8k.token.txt")


@dataclass(frozen=True)
class CaptionedImages:
    """Images, each with one or more captions, split into training and held-out images."""

    name: str
    train_images: UInt8[np.ndarray, "train size size 3"]
    train_captions: tuple[tuple[str, ...], ...]
    test_images: UInt8[np.ndarray, "test size size 3"]
    test_captions: tuple[tuple[str, ...], ...]


def flickr8k(size: int) -> CaptionedImages:
    """Read Flickr8k from the data folder. Raises CourseError with instructions when it is missing."""
    folder = data_folder() / "flickr8k"
    if not folder.is_dir():
        raise CourseError(
            f"{folder} does not exist. Flickr8k is distributed on request only, for non-commercial research: "
            "request it from the University of Illinois and unpack it there (Images/ and captions.txt)"
        )
    return captioned_folder(folder, size)


def captioned_folder(folder: Path | str, size: int, *, held_out: float = 0.1) -> CaptionedImages:
    """Read the captioned images of a folder, resized to size × size; the last by name are held out.

    Raises CourseError when there is no caption file, an image is missing or damaged, or there are fewer than two.
    """
    folder = Path(folder)
    captions = _captions(folder)
    names = sorted(captions)
    count = max(1, round(len(names) * held_out))
    if len(names) < 2:
        raise CourseError(f"{folder} has captions for {len(names)} images; expected at least two, one of them held out")
    images = np.stack([read_image(_image_path(folder, name), size) for name in names])
    texts = tuple(tuple(captions[name]) for name in names)
    return CaptionedImages(folder.name, images[:-count], texts[:-count], images[-count:], texts[-count:])


def _captions(folder: Path) -> dict[str, list[str]]:
    """Return the captions of each image by file name."""
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        raise CourseError(f"{folder} holds no caption file; expected one of {', '.join(TABLES)}")
    captions: dict[str, list[str]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        if table.suffix == ".txt" and ".token" in table.name:
            rows = (line.rstrip("\r\n").split("\t", 1) for line in file if line.strip())
        else:
            rows = (row for row in csv.reader(file) if row and row != ["image", "caption"])
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise CourseError(f"{table}, row {number}: expected an image name and a caption, not {row}")
            captions.setdefault(row[0].split("#")[0], []).append(row[1].strip())
    return captions


def _image_path(folder: Path, name: str) -> Path:
    for place in IMAGE_FOLDERS:
        if (folder / place / name).is_file():
            return folder / place / name
    raise CourseError(f"{folder} has a caption for {name}, but the image is in none of {', '.join(IMAGE_FOLDERS)}")
