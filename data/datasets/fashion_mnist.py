"""Fashion-MNIST: 70,000 gray images of clothes, 28 × 28, ten classes (Xiao, Rasul, Vollgraf, arXiv:1708.07747; MIT).

The four official files are read from `fashion_mnist/` or `fashion-mnist/` in the data folder.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from data.datasets.download import RemoteFile, find_or_download
from data.datasets.image_dataset import ImageDataset
from shared.errors import CourseError

FOLDERS = ("fashion_mnist", "fashion-mnist")
HOMES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def fashion_mnist() -> ImageDataset:
    """Return Fashion-MNIST: 60,000 images to train on and 10,000 held out, [n, 28, 28, 1].

    Raises CourseError when a file is missing and cannot be downloaded, or is invalid.
    """
    arrays, verified = [], True
    for name, sha256 in SHA256.items():
        file = find_or_download(RemoteFile(name, tuple(home + name for home in HOMES), {"sha256": sha256}), FOLDERS)
        arrays.append(read_idx(file.path, axes=3 if "images" in name else 1))
        verified &= file.verified
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if len(images) != len(labels):
            raise CourseError(f"Fashion-MNIST: {len(images)} images but {len(labels)} labels; the files do not match")
    return ImageDataset(
        "Fashion-MNIST",
        train_images[..., None],
        train_labels.astype(np.int64),
        test_images[..., None],
        test_labels.astype(np.int64),
        CLASS_NAMES,
        verified,
        "" if verified else "unofficial files (checksum differs)",
    )


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Return the bytes of a gzipped IDX file as an array of `axes` axes.

    IDX: two zero bytes, 8 for unsigned bytes, the number of axes, the length of each axis (4 bytes, big-endian), then
    the data (Yann LeCun, the MNIST database). Raises CourseError that names the file for any other content.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CourseError(f"{path}: damaged gzip file ({error}). Remove it to download it again.") from error
    head = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < head:
        raise CourseError(
            f"{path}: not an IDX file of unsigned bytes with {axes} axes; it starts with {content[:4].hex()}"
        )
    lengths = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, head, 4))
    if len(content) != head + math.prod(lengths):
        raise CourseError(
            f"{path}: the header states {math.prod(lengths)} bytes {lengths}, the file holds {len(content) - head}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(lengths)
