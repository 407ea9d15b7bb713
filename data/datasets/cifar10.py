"""CIFAR-10: 60,000 color photographs, 32 × 32, ten classes (Krizhevsky 2009, "Learning Multiple Layers of Features").

The reader searches `cifar10/`, `cifar-10/` and the data folder itself, in this order:
the official archive `cifar-10-binary.tar.gz` (downloaded when missing; read as raw bytes, nothing is unpickled);
the extracted folder `cifar-10-batches-bin`; `cifar10_jpeg.npz`, the same photographs as JPEG, whose pixels differ from
the official ones. The last two are read only with `UNVERIFIED=1`, and the results state it.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from data.datasets.download import RemoteFile, accepts_unverified, find, find_or_download
from data.datasets.image_dataset import ImageDataset
from shared.errors import CourseError

FOLDERS = ("cifar10", "cifar-10")
# The official page states the MD5 only. The SHA-256 is recorded in the checksum registries of several libraries,
# for example TensorFlow Datasets.
ARCHIVE = RemoteFile(
    "cifar-10-binary.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    {
        "md5": "c32a1d4ab5d03f1284b67883e8d87530",
        "sha256": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    },
)
EXTRACTED = "cifar-10-batches-bin"
PACKED = "cifar10_jpeg.npz"
TRAIN_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_BATCHES = ("test_batch.bin",)
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue plane


def cifar10() -> ImageDataset:
    """Return CIFAR-10: 50,000 images to train on and 10,000 held out, [n, 32, 32, 3].

    Raises CourseError when it is missing and cannot be downloaded, or when a file is invalid.
    """
    other = find(FOLDERS, EXTRACTED) or find(FOLDERS, PACKED)
    if other and not find(FOLDERS, ARCHIVE.name):
        if accepts_unverified():
            return _from_folder(other) if other.name == EXTRACTED else _from_jpeg(other)
        try:
            archive = find_or_download(ARCHIVE, FOLDERS)
        except CourseError as error:
            raise CourseError(f"{error}\nOr set UNVERIFIED=1 to use {other}; the results will state it.") from error
    else:
        archive = find_or_download(ARCHIVE, FOLDERS)
    note = "" if archive.verified else "an unofficial archive (checksum differs)"
    return _dataset(_from_archive(archive.path), archive.verified, note)


def _dataset(batches: dict[str, bytes], verified: bool, note: str) -> ImageDataset:
    train = _records([batches[name] for name in TRAIN_BATCHES])
    test = _records([batches[name] for name in TEST_BATCHES])
    return ImageDataset("CIFAR-10", *train, *test, CLASS_NAMES, verified, note)


def _records(batches: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    records = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, RECORD)
    # Planes of color → color last.
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _checked(batches: dict[str, bytes], source: Path) -> dict[str, bytes]:
    for name in TRAIN_BATCHES + TEST_BATCHES:
        if name not in batches:
            raise CourseError(f"{source}: {name} is missing; get {ARCHIVE.urls[0]} again")
        content = batches[name]
        if len(content) % RECORD or not content or max(content[::RECORD]) > 9:
            raise CourseError(f"{source}: {name} is not a sequence of {RECORD}-byte records with labels 0 to 9")
    return batches


def _from_archive(path: Path) -> dict[str, bytes]:
    """Read the batches from the archive in memory, without extracting it to disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            batches = {}
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".bin") else None
                if content is not None:
                    batches[Path(member.name).name] = content.read()
            return _checked(batches, path)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CourseError(f"{path}: damaged archive ({error}). Remove it to download it again.") from error


def _from_folder(folder: Path) -> ImageDataset:
    batches = {file.name: file.read_bytes() for file in sorted(folder.glob("*.bin"))}
    return _dataset(_checked(batches, folder), False, "an extracted folder, which has no official checksum")


def _from_jpeg(path: Path) -> ImageDataset:
    """Decode the packed JPEGs: one shared header, one scan per image, sorted by class."""
    try:
        with np.load(path, allow_pickle=False) as packed:
            header, scans, offsets = packed["header"].tobytes(), packed["scans"].tobytes(), packed["offsets"]
            labels, is_test = packed["labels"].astype(np.int64), packed["is_test"].astype(bool)
        images = np.empty((len(labels), 32, 32, 3), np.uint8)
        for image, start, end in zip(images, offsets, offsets[1:], strict=False):
            image[:] = np.asarray(Image.open(io.BytesIO(header + scans[start:end]), formats=["JPEG"]))
    except (OSError, KeyError, ValueError) as error:
        raise CourseError(f"{path}: not CIFAR-10 packed as JPEG ({error})") from error
    return ImageDataset(
        "CIFAR-10",
        images[~is_test],
        labels[~is_test],
        images[is_test],
        labels[is_test],
        CLASS_NAMES,
        verified=False,
        note="recompressed JPEG, mean PSNR 30.5 dB",
    )
