"""Your own images: a folder with one subfolder per class.

    my_images/cat/anything.jpg          or          my_images/train/cat/anything.jpg
    my_images/dog/something.png                     my_images/test/cat/something.png

Without `train` and `test` folders, a random fifth of each class is held out, drawn from a seed.
"""

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageOps

from data.datasets.image_dataset import ImageDataset
from shared.errors import CourseError
from shared.images import to_upright_rgb

# Pillow reports a damaged file with different exceptions, depending on the format and the damage.
UNREADABLE = (OSError, SyntaxError, ValueError, IndexError, TypeError, Image.DecompressionBombError)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def image_folder(
    folder: Path | str, size: int = 32, *, held_out: float = 0.2, seed: int = 0, skip_unreadable: bool = False
) -> ImageDataset:
    """Return the images of a folder, resized to size × size: [n, size, size, 3].

    Images are rotated by their EXIF orientation, scaled so that the shorter side fits, and center-cropped; transparent
    pixels become white. Classes are numbered alphabetically.

    Raises CourseError when there are fewer than two classes, when a class is too small to hold images out, or when an
    image cannot be read; with `skip_unreadable` such images are left out and named in the data set's `note`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; expected one with a subfolder of images per class")
    splits = (folder / "train", folder / "test")
    if all(split.is_dir() for split in splits):
        train, test = (_files(split) for split in splits)
        if train.keys() != test.keys():
            raise CourseError(f"{folder}: train has the classes {', '.join(train)}, test has {', '.join(test)}")
    else:
        train, test = _hold_out(_files(folder), held_out, seed)
    unreadable: list[str] = []
    names = tuple(train)
    arrays = [_read(classes, names, size, skip_unreadable, unreadable) for classes in (train, test)]
    note = "own images"
    if unreadable:
        note += f"; {len(unreadable)} unreadable, left out: " + "; ".join(unreadable)
    return ImageDataset(folder.name, *arrays[0], *arrays[1], names, verified=False, note=note)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of each class in alphabetical order, independent of the file system."""
    classes = {}
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            files = sorted(file for file in inner.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise CourseError(f"{inner} contains no images ({', '.join(SUFFIXES)}); add images or remove it")
            classes[inner.name] = files
    if len(classes) < 2:
        raise CourseError(f"{folder} holds {len(classes)} classes; expected at least two subfolders, one per class")
    return classes


def _hold_out(classes: dict[str, list[Path]], held_out: float, seed: int) -> tuple[dict, dict]:
    train, test = {}, {}
    for name, files in classes.items():
        count = max(1, round(len(files) * held_out))
        if count >= len(files):
            raise CourseError(f"class {name!r} has {len(files)} images: too few to hold out {held_out:.0%}")
        chosen = set(Random(seed).sample(range(len(files)), count))
        train[name] = [file for index, file in enumerate(files) if index not in chosen]
        test[name] = [file for index, file in enumerate(files) if index in chosen]
    return train, test


def _read(
    classes: dict[str, list[Path]], names: tuple[str, ...], size: int, skip_unreadable: bool, unreadable: list[str]
) -> tuple[np.ndarray, np.ndarray]:
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
    if not images:
        raise CourseError("no image could be read: " + "; ".join(unreadable))
    return np.stack(images), np.array(labels, np.int64)


def read_image(file: Path, size: int) -> np.ndarray:
    """Read one image as uint8 RGB [size, size, 3]. Raises CourseError that names the file when it is damaged."""
    try:
        with Image.open(file) as opened:
            return np.asarray(ImageOps.fit(to_upright_rgb(opened), (size, size), Image.Resampling.LANCZOS))
    except UNREADABLE as error:
        raise CourseError(f"{file}: unreadable image ({error}); replace or remove it") from error
