"""Each data set's reader, on tiny files in the official formats; and on the real ones where they lie at hand."""

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.datasets import cifar10 as cifar10_module
from data.datasets import digits as digits_module
from data.datasets import fashion_mnist as fashion_module
from data.datasets.cifar10 import cifar10
from data.datasets.digits import digits
from data.datasets.download import find
from data.datasets.fashion_mnist import fashion_mnist, read_idx
from data.datasets.load import load
from shared.errors import CourseError


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """An empty data folder, and no network: every official address points to a port that refuses."""
    monkeypatch.setenv("MULTIMODAL_DATA", str(tmp_path))
    monkeypatch.delenv("UNVERIFIED", raising=False)
    monkeypatch.setattr(fashion_module, "HOMES", ("http://127.0.0.1:9/",))
    nowhere = ("http://127.0.0.1:9/cifar-10-binary.tar.gz",)
    monkeypatch.setattr(cifar10_module, "ARCHIVE", replace(cifar10_module.ARCHIVE, urls=nowhere))
    return tmp_path


def idx(array: np.ndarray) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(bytes((0, 0, 8, array.ndim)) + lengths + array.tobytes(), mtime=0)


@pytest.fixture
def fashion(folder, monkeypatch):
    """Three training and two test images of 28 × 28 in the four official files, checksums to match."""
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": rng.integers(0, 256, (3, 28, 28), np.uint8),
        "train-labels-idx1-ubyte.gz": np.array([9, 0, 3], np.uint8),
        "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (2, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte.gz": np.array([1, 2], np.uint8),
    }
    (folder / "fashion-mnist").mkdir()
    for name, array in arrays.items():
        (folder / "fashion-mnist" / name).write_bytes(idx(array))
        monkeypatch.setitem(fashion_module.SHA256, name, hashlib.sha256(idx(array)).hexdigest())
    return folder / "fashion-mnist", arrays


def test_fashion_mnist_reads_the_official_files(fashion):
    _, arrays = fashion
    data = fashion_mnist()
    assert data.verified and data.note == "" and len(data.class_names) == 10
    np.testing.assert_array_equal(data.train_images[..., 0], arrays["train-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(data.test_images[..., 0], arrays["t10k-images-idx3-ubyte.gz"])
    assert data.train_labels.tolist() == [9, 0, 3] and data.test_labels.tolist() == [1, 2]
    assert data.train_labels.dtype == np.int64 and data.class_names[9] == "ankle boot"


def test_fashion_mnist_that_was_changed_is_refused_or_flagged(fashion, monkeypatch):
    place, _ = fashion
    (place / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.array([2, 1], np.uint8)))
    with pytest.raises(CourseError, match="the official one is"):
        fashion_mnist()
    monkeypatch.setenv("UNVERIFIED", "1")
    data = fashion_mnist()
    assert not data.verified and "checksum" in data.note and data.test_labels.tolist() == [2, 1]


def test_fashion_mnist_offline_names_the_file_and_its_place(folder):
    with pytest.raises(CourseError, match=r"fashion_mnist/train-images-idx3-ubyte\.gz"):
        fashion_mnist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip at all", "damaged gzip"),
        (idx(np.zeros((2, 3, 3), np.uint8))[:-9], "damaged gzip"),
        (gzip.compress(b"\0\0\x0d\3" + bytes(12)), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\3\0\0"), "not an IDX file"),
        (gzip.compress(gzip.decompress(idx(np.zeros((2, 3, 3), np.uint8)))[:-1]), "states 18 bytes .*holds 17"),
    ],
    # Named by hand: gzip writes the time into its header, and a test's name must not change with the clock.
    ids=["not gzip", "cut short", "floats", "no lengths", "a byte short"],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, message):
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(CourseError, match=rf"images\.gz.*{message}"):
        read_idx(tmp_path / "images.gz", axes=3)


def cifar_batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    names = (*cifar10_module.TRAIN_BATCHES, *cifar10_module.TEST_BATCHES)
    return {name: (rng.integers(0, 256, (2, 32, 32, 3), np.uint8), rng.integers(0, 10, 2)) for name in names}


def record(image: np.ndarray, label: int) -> bytes:
    """One record as the official page describes it, byte by byte."""
    planes = [bytes(image[row, column, channel] for row in range(32) for column in range(32)) for channel in range(3)]
    return bytes([label]) + b"".join(planes)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cifar_files():
    batches = cifar_batches()
    files = {name: b"".join(map(record, *batch)) for name, batch in batches.items()}
    return batches, files | {"readme.html": b"<html>"}


def check_cifar(data, batches):
    train = [batches[name] for name in cifar10_module.TRAIN_BATCHES]
    np.testing.assert_array_equal(data.train_images, np.concatenate([images for images, _ in train]))
    np.testing.assert_array_equal(data.train_labels, np.concatenate([labels for _, labels in train]))
    np.testing.assert_array_equal(data.test_images, batches["test_batch.bin"][0])
    np.testing.assert_array_equal(data.test_labels, batches["test_batch.bin"][1])


def test_cifar10_reads_the_official_archive(folder, monkeypatch, cifar_files):
    batches, files = cifar_files
    content = archive_of(files)
    checksums = {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")}
    monkeypatch.setattr(cifar10_module, "ARCHIVE", replace(cifar10_module.ARCHIVE, checksums=checksums))
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(content)
    data = cifar10()
    assert data.verified and data.note == ""
    check_cifar(data, batches)
    assert sorted(path.name for path in folder.rglob("*")) == ["cifar-10-binary.tar.gz", "cifar10"], "nothing extracted"


def test_cifar10_reads_its_extracted_folder_only_when_told(folder, monkeypatch, cifar_files):
    batches, files = cifar_files
    (folder / "cifar-10-batches-bin").mkdir()
    for name, content in files.items():
        (folder / "cifar-10-batches-bin" / name).write_bytes(content)
    with pytest.raises(CourseError, match=r"UNVERIFIED=1 to use .*cifar-10-batches-bin"):
        cifar10()
    monkeypatch.setenv("UNVERIFIED", "1")
    data = cifar10()
    assert not data.verified and "extracted" in data.note
    check_cifar(data, batches)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("data_batch_3.bin"), "data_batch_3.bin is missing"),
        (
            lambda files: files.update({"test_batch.bin": files["test_batch.bin"][:-1]}),
            "test_batch.bin is not a sequence",
        ),
        (lambda files: files.update({"test_batch.bin": b"\x0a" + bytes(3072)}), "labels 0 to 9"),
    ],
)
def test_a_damaged_cifar10_archive_is_named(folder, monkeypatch, cifar_files, change, message):
    _, files = cifar_files
    change(files)
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive_of(files))
    monkeypatch.setenv("UNVERIFIED", "1")
    with pytest.raises(CourseError, match=message):
        cifar10()
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive_of(files)[:500])
    with pytest.raises(CourseError, match="damaged archive"):
        cifar10()


def test_cifar10_as_packed_jpeg_is_read_only_when_told_and_says_so(folder, monkeypatch):
    colors = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
    encoded = []
    for color in colors:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), color).save(buffer, "JPEG", quality=75)
        encoded.append(buffer.getvalue())
    # Files of one quality and size share their head, up to the start of the scan.
    cut = encoded[0].index(b"\xff\xda")
    assert all(content[:cut] == encoded[0][:cut] for content in encoded)
    scans = [content[cut:] for content in encoded]
    (folder / "cifar10").mkdir()
    np.savez(
        folder / "cifar10" / "cifar10_jpeg.npz",
        header=np.frombuffer(encoded[0][:cut], np.uint8),
        scans=np.frombuffer(b"".join(scans), np.uint8),
        offsets=np.cumsum([0, *map(len, scans)]),
        labels=np.array([4, 7, 1], np.uint8),
        is_test=np.array([0, 1, 0], np.uint8),
    )
    with pytest.raises(CourseError, match=r"UNVERIFIED=1 to use .*cifar10_jpeg"):
        cifar10()
    monkeypatch.setenv("UNVERIFIED", "1")
    data = cifar10()
    assert not data.verified and data.note == "recompressed JPEG, mean PSNR 30.5 dB"
    assert data.train_labels.tolist() == [4, 1] and data.test_labels.tolist() == [7]
    for image, color in zip([*data.train_images, *data.test_images], [colors[0], colors[2], colors[1]], strict=True):
        assert image.shape == (32, 32, 3) and np.abs(image.astype(int) - color).max() < 6
    (folder / "cifar10" / "cifar10_jpeg.npz").write_bytes(b"damaged")
    with pytest.raises(CourseError, match="not CIFAR-10 packed as JPEG"):
        cifar10()


def test_a_pickle_inside_a_packed_file_is_never_opened(folder, monkeypatch, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "opened"),)

    np.savez(folder / "cifar10_jpeg.npz", header=np.array([Bomb()], object))
    monkeypatch.setenv("UNVERIFIED", "1")
    with pytest.raises(CourseError, match="not CIFAR-10"):
        cifar10()
    assert not (tmp_path / "opened").exists()


def test_digits_are_the_real_ones_split_as_the_stdlib_splits_them():
    images, labels = digits_module.load()
    assert images.shape == (1797, 8, 8) and images.dtype == np.uint8 and images.max() == 16
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    train, held_out = digits_module.split(3)
    assert len(held_out) == 359 and sorted([*train, *held_out]) == list(range(1797))
    assert not np.array_equal(held_out, digits_module.split(4)[1])
    train, held_out = digits_module.last_fifth()
    assert held_out.tolist() == list(range(1438, 1797)) and train.tolist() == list(range(1438))


def test_digits_as_a_data_set_are_bytes():
    data, (images, labels) = digits(seed=3), digits_module.load()
    train, held_out = digits_module.split(3)
    assert data.verified and data.train_images.shape == (1438, 8, 8, 1) and data.train_images.max() == 255
    np.testing.assert_array_equal(np.round(data.test_images[..., 0] / 255 * 16), images[held_out])
    np.testing.assert_array_equal(data.train_labels, labels[train])
    np.testing.assert_array_equal(digits(other_writers=True).test_labels, labels[1438:])


def test_an_unknown_data_set_names_the_known_ones():
    with pytest.raises(CourseError, match="'cifar11': choose one of digits, fashion_mnist, cifar10"):
        load("cifar11")
    with pytest.raises(CourseError, match="images is not a folder"):
        load("folder:no/such/images")


@pytest.mark.skipif(not os.environ.get("MULTIMODAL_DATA"), reason="MULTIMODAL_DATA is not set")
def test_the_real_fashion_mnist_where_it_is_at_hand():
    if not find(fashion_module.FOLDERS, "train-images-idx3-ubyte.gz"):
        pytest.skip("no Fashion-MNIST in MULTIMODAL_DATA")
    data = fashion_mnist()
    assert data.verified and data.train_images.shape == (60000, 28, 28, 1)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10


@pytest.mark.skipif(not os.environ.get("MULTIMODAL_DATA"), reason="MULTIMODAL_DATA is not set")
def test_the_real_cifar10_where_it_is_at_hand():
    if not find(cifar10_module.FOLDERS, "cifar-10-binary.tar.gz"):
        pytest.skip("no CIFAR-10 archive in MULTIMODAL_DATA")
    data = cifar10()
    assert data.verified and data.train_images.shape == (50000, 32, 32, 3)
    assert np.bincount(data.train_labels).tolist() == [5000] * 10
    # The mean of each channel that the literature gives.
    np.testing.assert_allclose(data.train_images.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-4)
