"""One's own pictures: a folder with one sub-folder a class, and the pictures of that class in it.

    my_pictures/cat/anything.jpg          or          my_pictures/train/cat/anything.jpg
    my_pictures/dog/something.png                     my_pictures/test/cat/something.png

Without `train` and `test` folders a fifth of each class is held out, drawn by a seed.
"""

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageOps

from data.datasets.image_dataset import ImageDataset
from shared.errors import CourseError
from shared.images import to_upright_rgb

# Pillow reports a damaged file by many kinds of error, depending on the format and on where the damage lies.
UNREADABLE = (OSError, SyntaxError, ValueError, IndexError, TypeError, Image.DecompressionBombError)
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def image_folder(
    folder: Path | str, size: int = 32, *, held_out: float = 0.2, seed: int = 0, skip_unreadable: bool = False
) -> ImageDataset:
    """Return the pictures of a folder, each brought to size × size: [n, size, size, 3].

    Pictures are turned as their camera noted (EXIF), scaled so that the shorter side fits, and cut around the middle;
    what is transparent lies on white. Classes are numbered by the alphabet.

    Raises CourseError when the folder does not hold at least two classes, a class has nothing to hold out, or a picture
    cannot be read; with `skip_unreadable` such pictures are left out and named in the data set's `note`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder; expected one with a sub-folder of pictures for each class")
    parts = (folder / "train", folder / "test")
    if all(part.is_dir() for part in parts):
        train, test = (_files(part) for part in parts)
        if train.keys() != test.keys():
            raise CourseError(f"{folder}: train has the classes {', '.join(train)}, test has {', '.join(test)}")
    else:
        train, test = _hold_out(_files(folder), held_out, seed)
    unreadable: list[str] = []
    names = tuple(train)
    arrays = [_read(classes, names, size, skip_unreadable, unreadable) for classes in (train, test)]
    note = "one's own pictures"
    if unreadable:
        note += f"; {len(unreadable)} unreadable, left out: " + "; ".join(unreadable)
    return ImageDataset(folder.name, *arrays[0], *arrays[1], names, verified=False, note=note)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return each class's pictures, in alphabetical order: no file system's own order."""
    classes = {}
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            files = sorted(file for file in inner.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            if not files:
                raise CourseError(f"{inner} holds no picture ({', '.join(ENDINGS)}); fill or remove it")
            classes[inner.name] = files
    if len(classes) < 2:
        raise CourseError(f"{folder} holds {len(classes)} classes; expected a sub-folder for each of two or more")
    return classes


def _hold_out(classes: dict[str, list[Path]], held_out: float, seed: int) -> tuple[dict, dict]:
    train, test = {}, {}
    for name, files in classes.items():
        count = max(1, round(len(files) * held_out))
        if count >= len(files):
            raise CourseError(f"class {name!r} has {len(files)} pictures: too few to hold {held_out:.0%} out")
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
        raise CourseError("no picture could be read: " + "; ".join(unreadable))
    return np.stack(images), np.array(labels, np.int64)


def read_image(file: Path, size: int) -> np.ndarray:
    """Return one picture as uint8 RGB [size, size, 3]. Raises CourseError, naming the file, when it is damaged."""
    try:
        with Image.open(file) as opened:
            return np.asarray(ImageOps.fit(to_upright_rgb(opened), (size, size), Image.Resampling.LANCZOS))
    except UNREADABLE as error:
        raise CourseError(f"{file}: unreadable picture ({error}); replace or remove it") from error
