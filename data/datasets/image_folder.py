"""Your own images: a folder with one subfolder per class.

    my_images/cat/anything.jpg          or          my_images/train/cat/anything.jpg
    my_images/dog/something.png                     my_images/test/cat/something.png      (or val, valid, validation)

Without such folders, a random fifth of each class is held out, drawn from a seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps

from data.datasets.image_dataset import ImageDataset
from data.datasets.splits import check_fraction, find_split_folders, hold_out
from shared.errors import CourseError
from shared.folders import FolderFiles, describe_left_out, walk_folder
from shared.images import SUFFIXES, open_image
from shared.text_files import normalize, printable

Classes = Mapping[str, list[Path]]
"""The image files of each class, by the class name in NFC."""


@dataclass
class _LeftOut:
    """Collect what a reader leaves out, for the data set's note."""

    files: dict[Path, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def note(self) -> str:
        """Return the note of the data set."""
        unreadable = ""
        if self.unreadable:
            unreadable = f"{len(self.unreadable)} unreadable, left out: " + "; ".join(self.unreadable)
        return "; ".join(filter(None, ("own images", unreadable, describe_left_out(self.files))))


def image_folder(
    folder: Path | str, size: int = 32, *, held_out: float = 0.2, seed: int = 0, skip_unreadable: bool = False
) -> ImageDataset:
    """Return the images of a folder, resized to size × size: [n, size, size, 3].

    Images are rotated by their EXIF orientation, scaled so that the shorter side fits, and center-cropped; transparent
    pixels become white. Classes are numbered alphabetically. With `held_out` 0 there are no test images, unless the
    folder has a folder of its own for them. Files and folders that are left out are counted and named in the data
    set's `note`: hidden ones, other file types, dead and circular links, images outside every class.

    Raises CourseError when there are fewer than two classes, when a class is too small to hold images out, or when an
    image cannot be read; with `skip_unreadable` such images are left out and named in the note.
    """
    folder = Path(folder)
    check_fraction(held_out)
    if not folder.is_dir():
        raise CourseError(f"{printable(folder)} is not a folder; expected one with a subfolder of images per class")
    left_out = _LeftOut()
    train, test = _split(walk_folder(folder, SUFFIXES), held_out, seed, left_out)
    names = tuple(train)
    arrays = [_read(classes, names, size, skip_unreadable, left_out.unreadable) for classes in (train, test)]
    if not len(arrays[0][1]):
        raise CourseError("no image could be read: " + "; ".join(left_out.unreadable))
    return ImageDataset(folder.name, *arrays[0], *arrays[1], names, verified=False, note=left_out.note())


def _split(listing: FolderFiles, held_out: float, seed: int, left_out: _LeftOut) -> tuple[Classes, Classes]:
    """Return the training and the held-out images of each class."""
    try:
        parts = find_split_folders([path.name for path in listing.folders if len(path.parts) == 1])
    except CourseError as error:
        raise CourseError(f"{printable(listing.root)}: {error}") from None
    if parts is None:
        return _hold_out(_classes(listing, left_out), held_out, seed)
    training, test = parts
    used = (training,) if test is None else (training, test)
    for path in listing.files:
        if path.parts[0] not in used:
            left_out.files[path] = f"outside {' and '.join(used)}"
    left_out.files |= {path: why for path, why in listing.left_out.items() if path.parts[0] not in used}
    classes = _classes(listing.inside(training), left_out, training)
    if test is None:
        return _hold_out(classes, held_out, seed)
    held_out_classes = _classes(listing.inside(test), left_out, test)
    if classes.keys() != held_out_classes.keys():
        raise CourseError(
            f"{printable(listing.root)}: {training} has the classes {', '.join(classes)}, "
            f"{test} has {', '.join(held_out_classes)}"
        )
    return classes, held_out_classes


def _classes(listing: FolderFiles, left_out: _LeftOut, part: str = "") -> Classes:
    """Return the image files of each class in alphabetical order, independent of the file system."""
    left_out.files |= {part / path: why for path, why in listing.left_out.items()}
    files_of: dict[str, list[Path]] = {path.name: [] for path in listing.folders if len(path.parts) == 1}
    for path in listing.files:
        if len(path.parts) == 1:
            left_out.files[part / path] = "outside every class"
        else:
            files_of[path.parts[0]].append(listing.root / path)
    classes: dict[str, list[Path]] = {}
    for folder, files in files_of.items():
        if not files:
            reasons = describe_left_out(listing.inside(folder).left_out)
            raise CourseError(
                f"{printable(listing.root / folder)} has no images ({', '.join(SUFFIXES)}); add images or remove it"
                + (f" ({reasons})" if reasons else "")
            )
        if normalize(folder) in classes:
            raise CourseError(f"{printable(listing.root)} has two folders called {folder!r}; rename one")
        classes[normalize(folder)] = files
    if len(classes) < 2:
        raise CourseError(
            f"{printable(listing.root)} holds {len(classes)} classes; expected at least two subfolders, one per class"
        )
    return classes


def _hold_out(classes: Classes, held_out: float, seed: int) -> tuple[Classes, Classes]:
    train, test = {}, {}
    for name, files in classes.items():
        rows = hold_out(len(files), held_out, seed, f"class {name!r}")
        train[name], test[name] = ([files[row] for row in part] for part in rows)
    return train, test


def _read(
    classes: Classes, names: tuple[str, ...], size: int, skip_unreadable: bool, unreadable: list[str]
) -> tuple[UInt8[np.ndarray, "images size size 3"], Int64[np.ndarray, " images"]]:
    images, labels = [], []
    for name, files in classes.items():
        for file in files:
            try:
                images.append(read_image(file, size))
                labels.append(names.index(name))
            except CourseError as error:
                if not skip_unreadable:
                    raise
                unreadable.append(str(error))
    return np.array(images, np.uint8).reshape(-1, size, size, 3), np.array(labels, np.int64)


def read_image(file: Path, size: int) -> np.ndarray:
    """Read one image as uint8 RGB [size, size, 3], center-cropped. Raises CourseError as `open_image` does."""
    return np.asarray(ImageOps.fit(open_image(file), (size, size), Image.Resampling.LANCZOS))
