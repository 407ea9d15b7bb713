"""Folders of images with captions: every format is read, every mistake is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.captioner.data import CaptionBatches, CaptionedImages, encode_captions, read_folder, train_tokenizer
from apps.captioner.toy_world import write_folder
from shared.errors import CourseError
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN

NAMES = ("a.png", "b.png", "c.png")
CAPTIONS = {"a.png": ["a cat", "a gray cat"], "b.png": ["a dog"], "c.png": ["a boat at sea"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(tmp_path / name)
    return tmp_path


FORMATS = {
    "csv": ("captions.csv", "image,caption\n" + "".join(f"{n},{c}\n" for n in NAMES for c in CAPTIONS[n])),
    "txt": ("captions.txt", "".join(f"{n},{c}\n" for n in NAMES for c in CAPTIONS[n])),
    "mapping": ("captions.json", json.dumps({n: each if len(each) > 1 else each[0] for n, each in CAPTIONS.items()})),
    "records": ("captions.json", json.dumps([{"image": n, "caption": c} for n in NAMES for c in CAPTIONS[n]])),
    "coco": (
        "captions.json",
        json.dumps(
            {
                "images": [{"id": number, "file_name": n} for number, n in enumerate(NAMES)],
                "annotations": [
                    {"image_id": number, "caption": c} for number, n in enumerate(NAMES) for c in CAPTIONS[n]
                ],
            }
        ),
    ),
}


@pytest.mark.parametrize("captions_format", FORMATS)
def test_every_format_gives_the_same_captions(folder, captions_format):
    name, content = FORMATS[captions_format]
    (folder / name).write_text(content)
    training, test = read_folder(folder, 16, held_out=0.1)
    assert training.pixels.shape == (2, 3, 16, 16) and training.pixels.dtype == torch.uint8
    assert len(test.captions) == 1
    levels = {40 * number: CAPTIONS[name] for number, name in enumerate(NAMES)}
    for images in (training, test):
        captions = [levels.pop(int(pixels[0, 0, 0])) for pixels in images.pixels]
        assert [list(each) for each in images.captions] == captions
    assert not levels


def test_what_is_left_out_is_named(folder, capsys):
    (folder / "captions.csv").write_text("a.png,a cat\nb.png,a dog\n")
    read_folder(folder, 16)
    assert "1 left out: 1 without a caption (c.png)" in capsys.readouterr().err


def test_a_latin_1_table_is_named_with_its_line(folder):
    (folder / "captions.csv").write_bytes("a.png,a cat\nb.png,un chien mouill\u00e9\n".encode("latin-1"))
    with pytest.raises(CourseError, match=r"captions\.csv, line 2: the byte 0xe9 is not UTF-8"):
        read_folder(folder, 16)


def test_with_nothing_held_out_both_splits_are_complete(folder):
    (folder / "captions.json").write_text(FORMATS["mapping"][1])
    training, test = read_folder(folder, 16, held_out=0.0)
    assert len(training.captions) == len(test.captions) == 3


BROKEN = {
    "no JSON": ("{", "cannot be read as JSON"),
    "no captions": ("{}", "holds no captions"),
    "a number for a caption": ('{"a.png": 3}', "'a.png' is 3"),
    "a record without caption": ('[{"image": "a.png"}]', "record 0"),
    "an unknown image": ('{"a.png": "x", "z.png": "y"}', "caption for z.png"),
    "one image": ('{"a.png": "x"}', "at least two"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_invalid_tables_are_named(folder, case):
    content, message = BROKEN[case]
    (folder / "captions.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        read_folder(folder, 16)


def test_a_damaged_image_is_named(folder):
    (folder / "captions.json").write_text(FORMATS["mapping"][1])
    data = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(CourseError, match=r"b\.png: unreadable image"):
        read_folder(folder, 16)


def test_a_missing_table_or_folder_is_named(folder, tmp_path):
    with pytest.raises(CourseError, match="no caption file"):
        read_folder(folder, 16)
    with pytest.raises(CourseError, match="is no folder"):
        read_folder(tmp_path / "nowhere", 16)
    with pytest.raises(CourseError, match="held-out fraction"):
        read_folder(folder, 16, held_out=1.0)


def test_captions_are_encoded_with_begin_and_end():
    tokenizer = train_tokenizer([["a red moon", "a red star"], ["a red moon"]], 300)
    tokens, segments = encode_captions(tokenizer, ["a red moon", "a"])
    assert tokens[0, 0] == tokens[1, 0] == tokenizer.special_tokens[BEGIN_TOKEN]
    for row, text in enumerate(("a red moon", "a")):
        inside = tokens[row][segments[row] == 0]
        assert inside[-1] == tokenizer.special_tokens[END_TOKEN]
        assert tokenizer.decode(inside[1:-1].tolist()) == text
    assert segments[0].min() == 0 and (segments[1] == -1).sum() == (segments[0] == 0).sum() - 3


def test_batches_keep_images_and_captions_together():
    # The image's gray level is the number of its captions.
    captions = [[f"a {name}", f"the {name}"] for name in ("cat", "dog", "boat", "tree")]
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    images = CaptionedImages(pixels, captions)
    tokenizer = train_tokenizer(captions, 300)
    batches = CaptionBatches(images, tokenizer, batch_size=4, seed=3)
    texts = []
    for number in (0, 1):
        pixels, tokens, segments = batches(number)
        for image, row, segment in zip(pixels, tokens, segments, strict=True):
            text = tokenizer.decode(row[segment == 0].tolist()[1:-1])
            assert text in captions[int(image[0, 0, 0])]
            texts.append(text)
    assert sorted(texts) == sorted(caption for of_one in captions for caption in of_one)
    assert torch.equal(batches(0)[1], batches(0)[1])
    blind, *rest = CaptionBatches(images, tokenizer, batch_size=4, seed=3, blind=True)(0)
    assert (blind == 128).all() and torch.equal(rest[0], batches(0)[1])


def test_a_toy_folder_is_read_like_any_other(tmp_path):
    write_folder(tmp_path / "toy", count=5, size=32)
    training, test = read_folder(tmp_path / "toy", 32)
    assert training.pixels.shape == (4, 3, 32, 32) and len(test.captions) == 1
    assert all(each[0].startswith(("a ", "an ", "two ")) for each in training.captions)
