"""The 1,797 handwritten digits of `data/digits.csv.gz`, 8 × 8, as arrays. They are part of the repository."""

import numpy as np
from jaxtyping import Int64, UInt8

from data.datasets.image_dataset import ImageDataset
from shared.stdlib import digits as files

CLASS_NAMES = tuple("0123456789")


def load() -> tuple[UInt8[np.ndarray, "digits 8 8"], Int64[np.ndarray, " digits"]]:
    """Return all images (0 is white, 16 is black) and their labels, in the order of the file."""
    dataset = files.load()
    return np.array(dataset.images, np.uint8).reshape(-1, 8, 8), np.array(dataset.labels, np.int64)


def split(seed: int) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
    """Return the indices of the training digits and of a random held-out fifth, as `shared.stdlib.digits` does."""
    train, held_out = files.train_test_split(len(files.load().labels), 0.2, seed)
    return np.array(train, np.int64), np.array(held_out, np.int64)


def last_fifth() -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
    """Return the split that holds out the end of the file: other writers, which is harder."""
    count = len(files.load().labels)
    order = np.arange(count)
    return order[: count - round(count * 0.2)], order[count - round(count * 0.2) :]


def digits(seed: int = 0, other_writers: bool = False) -> ImageDataset:
    """Return the digits as bytes from 0 to 255, [n, 8, 8, 1], split by `split(seed)`, or by `last_fifth()`."""
    images, labels = load()
    images = ((images.astype(np.uint16) * 255 + files.MAX_PIXEL // 2) // files.MAX_PIXEL).astype(np.uint8)[..., None]
    train, test = last_fifth() if other_writers else split(seed)
    return ImageDataset("digits", images[train], labels[train], images[test], labels[test], CLASS_NAMES, verified=True)
