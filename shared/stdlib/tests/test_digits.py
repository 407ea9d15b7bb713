"""Test that the digits are the published ones, that the split is fixed, and that a damaged file is named."""

import gzip
import hashlib
import re

import pytest

from shared.stdlib import digits


def test_file_matches_its_license_page():
    packed = digits.PATH.read_bytes()
    expected = re.search(r"[0-9a-f]{64}", (digits.PATH.parent / "DIGITS-LICENSE.md").read_text(encoding="utf-8"))[0]
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == expected
    # Neither a time nor a name in the header: packing the same text again gives the same bytes.
    assert packed[3] == 0 and packed[4:8] == bytes(4)


def test_digits_are_the_published_ones():
    data = digits.load()
    assert [data.labels.count(digit) for digit in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(data.images) == 1797 and {len(image) for image in data.images} == {64}
    assert {value for image in data.images for value in image} == set(range(17))


def test_split_is_complete_disjoint_and_fixed_by_its_seed():
    training, held_out = digits.train_test_split(1797, 0.2, seed=0)
    assert len(held_out) == 359 and sorted(training + held_out) == list(range(1797))
    assert (
        (training, held_out) == digits.train_test_split(1797, 0.2, seed=0) != digits.train_test_split(1797, 0.2, seed=1)
    )
    # A number written down, because the same seed must hold out the same digits on every platform and Python.
    assert held_out[:5] == [1530, 1544, 108, 813, 71]


def test_subset_keeps_images_and_labels_together():
    data = digits.load()
    part = data.subset([5, 3])
    assert part.images == [data.images[5], data.images[3]] and part.labels == [5, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        digits.PATH.read_bytes()[:-100],
        gzip.compress(b"1,2,3\n"),
        gzip.compress(b"0," * 64 + b"x\n"),
        gzip.compress(b"17," + b"0," * 63 + b"1\n"),
        gzip.compress(b"0," * 64 + b"10\n"),
    ],
    # Named by hand: gzip writes the time into its header, and a test's name must not change with the clock.
    ids=["empty", "not gzip", "cut short", "three numbers", "no number", "too bright", "no such digit"],
)
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"digits\.csv\.gz"):
        digits.load(path)
