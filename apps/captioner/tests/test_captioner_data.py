"""Folders of pictures with captions: every spelling read, every mistake named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from apps.captioner.data import (
    CaptionBatches,
    Pictures,
    caption_tokenizer,
    caption_tokens,
    read_folder,
)
from apps.captioner.toy import write_folder
from shared.errors import CourseError

NAMES = ("a.png", "b.png", "c.png")
SAID = {"a.png": ["a cat", "a gray cat"], "b.png": ["a dog"], "c.png": ["a boat at sea"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(tmp_path / name)
    return tmp_path


SPELLINGS = {
    "csv": ("captions.csv", "image,caption\n" + "".join(f"{n},{c}\n" for n in NAMES for c in SAID[n])),
    "txt": ("captions.txt", "".join(f"{n},{c}\n" for n in NAMES for c in SAID[n])),
    "mapping": ("captions.json", json.dumps({n: said if len(said) > 1 else said[0] for n, said in SAID.items()})),
    "records": ("captions.json", json.dumps([{"image": n, "caption": c} for n in NAMES for c in SAID[n]])),
    "coco": (
        "captions.json",
        json.dumps(
            {
                "images": [{"id": number, "file_name": n} for number, n in enumerate(NAMES)],
                "annotations": [{"image_id": number, "caption": c} for number, n in enumerate(NAMES) for c in SAID[n]],
            }
        ),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_says_the_same(folder, spelling):
    name, content = SPELLINGS[spelling]
    (folder / name).write_text(content)
    learn, test = read_folder(folder, 16, held_out=0.1)
    assert [list(said) for said in learn.captions] == [SAID["a.png"], SAID["b.png"]]
    assert [list(said) for said in test.captions] == [SAID["c.png"]]
    assert learn.pixels.shape == (2, 3, 16, 16) and learn.pixels.dtype == torch.uint8
    assert test.pixels.float().mean().item() == pytest.approx(80, abs=1)


def test_with_nothing_held_out_all_are_learned_from(folder):
    (folder / "captions.json").write_text(SPELLINGS["mapping"][1])
    learn, test = read_folder(folder, 16, held_out=0.0)
    assert len(learn.captions) == len(test.captions) == 3


BROKEN = {
    "no JSON": ("{", "cannot be read as JSON"),
    "no captions": ("{}", "holds no captions"),
    "a number for a caption": ('{"a.png": 3}', "'a.png' is 3"),
    "a record without caption": ('[{"image": "a.png"}]', "record 0"),
    "an unknown picture": ('{"a.png": "x", "z.png": "y"}', "caption for z.png"),
    "one picture": ('{"a.png": "x"}', "two are the least"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_makes_no_sense_is_named(folder, what):
    content, message = BROKEN[what]
    (folder / "captions.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        read_folder(folder, 16)


def test_a_damaged_picture_is_named(folder):
    (folder / "captions.json").write_text(SPELLINGS["mapping"][1])
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CourseError, match=r"b\.png: unreadable picture"):
        read_folder(folder, 16)


def test_no_table_and_no_folder(folder, tmp_path):
    with pytest.raises(CourseError, match="no table of captions"):
        read_folder(folder, 16)
    with pytest.raises(CourseError, match="is no folder"):
        read_folder(tmp_path / "nowhere", 16)
    with pytest.raises(CourseError, match="share held out"):
        read_folder(folder, 16, held_out=1.0)


def test_captions_as_tokens():
    tokenizer = caption_tokenizer([["a red moon", "a red star"], ["a red moon"]], 300)
    tokens, segments = caption_tokens(tokenizer, ["a red moon", "a"])
    assert tokens[0, 0] == tokens[1, 0] == tokenizer.special_tokens[BEGIN_TOKEN]
    for row, text in enumerate(("a red moon", "a")):
        inside = tokens[row][segments[row] == 0]
        assert inside[-1] == tokenizer.special_tokens[END_TOKEN]
        assert tokenizer.decode(inside[1:-1].tolist()) == text
    assert segments[0].min() == 0 and (segments[1] == -1).sum() == (segments[0] == 0).sum() - 3


def test_batches_keep_pictures_and_captions_together():
    # The picture's gray level is the number of its caption.
    said = [[f"a {name}", f"the {name}"] for name in ("cat", "dog", "boat", "house")]
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    pairs = Pictures(pixels, said)
    tokenizer = caption_tokenizer(said, 300)
    batches = CaptionBatches(pairs, tokenizer, batch_size=4, seed=3)
    seen = []
    for number in (0, 1):
        pictures, tokens, segments = batches(number)
        for picture, row, segment in zip(pictures, tokens, segments, strict=True):
            text = tokenizer.decode(row[segment == 0].tolist()[1:-1])
            assert text in said[int(picture[0, 0, 0])]
            seen.append(text)
    assert sorted(seen) == sorted(caption for of_one in said for caption in of_one)
    assert torch.equal(batches(0)[1], batches(0)[1])
    blind, *rest = CaptionBatches(pairs, tokenizer, batch_size=4, seed=3, blind=True)(0)
    assert (blind == 128).all() and torch.equal(rest[0], batches(0)[1])


def test_a_toy_folder_is_a_folder_like_anybodys(tmp_path):
    write_folder(tmp_path / "toy", pairs=5, size=32)
    learn, test = read_folder(tmp_path / "toy", 32)
    assert learn.pixels.shape == (4, 3, 32, 32) and len(test.captions) == 1
    assert all(said[0].startswith(("a ", "an ", "two ")) for said in learn.captions)
