"""Images with captions: Flickr8k as distributed, or your own folder.

    flickr8k/Images/1000268201_693b08cb0e.jpg   and   flickr8k/captions.txt         (image,caption: one per line)
    flickr8k/Flicker8k_Dataset/…                and   flickr8k/Flickr8k.token.txt   (image#0 ⇥ caption)

`data.datasets.caption_tables` lists the other formats of the table. The images may be in any subfolder.

Flickr8k (Hodosh, Young, Hockenmaier 2013) is distributed on request by the University of Illinois
for non-commercial research and education, so it is not downloaded here. Put the folder into `data/cache` or
`$MULTIMODAL_DATA`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from data.datasets.caption_tables import CaptionRow, find_table, read_caption_table
from data.datasets.download import data_folder
from data.datasets.image_folder import read_image
from data.datasets.splits import check_fraction, hold_out
from shared.errors import CourseError
from shared.folders import FileIndex, describe_left_out, walk_folder
from shared.images import SUFFIXES
from shared.text_files import printable


@dataclass(frozen=True)
class CaptionedImages:
    """Images, each with one or more captions, split into training and held-out images.

    `note` names what the folder has beside them: images without a caption, dead links, hidden files.
    """

    name: str
    train_images: UInt8[np.ndarray, "train size size 3"]
    train_captions: tuple[tuple[str, ...], ...]
    test_images: UInt8[np.ndarray, "test size size 3"]
    test_captions: tuple[tuple[str, ...], ...]
    note: str = ""


def flickr8k(size: int) -> CaptionedImages:
    """Read Flickr8k from the data folder. Raises CourseError with instructions when it is missing."""
    folder = data_folder() / "flickr8k"
    if not folder.is_dir():
        raise CourseError(
            f"{folder} does not exist. Flickr8k is distributed on request only, for non-commercial research: "
            "request it from the University of Illinois and unpack it there (Images/ and captions.txt)"
        )
    return captioned_folder(folder, size)


def captioned_folder(folder: Path | str, size: int, *, held_out: float = 0.1, seed: int = 0) -> CaptionedImages:
    """Read the captioned images of a folder, resized to size × size; some are held out, drawn from the seed.

    Images are in the order of their paths. With `held_out` 0 no image is held out.

    Raises CourseError when there is no caption file, the file is invalid, an image is missing, damaged or not named
    uniquely, or there are fewer than two.
    """
    folder = Path(folder)
    check_fraction(held_out)
    if not folder.is_dir():
        raise CourseError(f"{printable(folder)} is no folder; expected one with images and a caption file")
    table = find_table(folder)
    listing = walk_folder(folder)
    index = FileIndex(listing)
    captions: dict[Path, list[str]] = {}
    for row in read_caption_table(table):
        captions.setdefault(_find_image(index, row), []).append(row.caption)
    if len(captions) < 2 and held_out:
        raise CourseError(
            f"{printable(folder)} has captions for {len(captions)} images; at least two are needed, one to hold out"
        )
    paths = [path for path in listing.files if path in captions]
    images = np.stack([read_image(folder / path, size) for path in paths])
    without_caption = {
        path: "without a caption" for path in listing.files if path not in captions and path.suffix.lower() in SUFFIXES
    }
    rows = hold_out(len(paths), held_out, seed, printable(folder))

    def captions_of(chosen: Sequence[int]) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(captions[paths[row]]) for row in chosen)

    return CaptionedImages(
        folder.name,
        images[rows[0]],
        captions_of(rows[0]),
        images[rows[1]],
        captions_of(rows[1]),
        describe_left_out(without_caption | dict(listing.left_out)),
    )


def _find_image(index: FileIndex, row: CaptionRow) -> Path:
    """Return the image that a row names. Flickr8k's original table numbers the captions of an image: dog.jpg#0."""
    try:
        path = index.find(row.image)
        numbered = re.fullmatch(r"(.*)#\d+", row.image, re.DOTALL)
        if path is None and numbered:
            path = index.find(numbered[1])
    except CourseError as error:
        raise CourseError(f"{row.where}: {error}") from None
    if path is None:
        advice = "; a header names its columns image and caption" if row.where.endswith("line 1") else ""
        raise CourseError(
            f"{row.where} has a caption for {row.image}, but {printable(index.root)} has no such image{advice}"
        )
    return path
