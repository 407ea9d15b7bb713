"""Images with captions from your own folder, as tensors and batches for training.

my_images/dog.jpg  my_images/boat.png  …     and one of
my_images/captions.txt or captions.csv       dog.jpg,a dog on the sand          (one caption per line, header optional)
my_images/captions.json                      {"dog.jpg": "a dog on the sand"}   (or a list of several captions)
                                             [{"image": "dog.jpg", "caption": "a dog on the sand"}]
                                             {"images": […], "annotations": […]}  in COCO's format
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from data.datasets.captioned_folder import captioned_folder
from data.datasets.coco_captions import read_captions
from data.datasets.image_folder import read_image
from shared.errors import CourseError
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN
from shared.training import Batches

JSON = "captions.json"
GRAY = 128


@dataclass(frozen=True)
class CaptionedImages:
    """Hold images of one size, each with one or more captions."""

    pixels: UInt8[Tensor, "images 3 size size"]
    captions: Sequence[Sequence[str]]

    def split(self, count: int) -> tuple["CaptionedImages", "CaptionedImages"]:
        """Return the first `count` images, and the others."""
        return (
            CaptionedImages(self.pixels[:count], self.captions[:count]),
            CaptionedImages(self.pixels[count:], self.captions[count:]),
        )


# ── Your own folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def read_folder(folder: Path | str, size: int, *, held_out: float = 0.1) -> tuple[CaptionedImages, CaptionedImages]:
    """Read the training images of a folder and the held-out ones (the last by name), cropped to size × size.

    held_out   fraction of held-out images, at least one image; with 0 both results are the complete folder

    Raises CourseError when there is no valid table of captions, or an image is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder; expected one with images and captions.txt, captions.csv or {JSON}")
    if not 0.0 <= held_out < 1.0:
        raise CourseError(f"the held-out fraction is {held_out}; expected 0 or more and less than 1")
    if (folder / JSON).is_file():
        captions_of = _read_json_captions(folder / JSON)
        names = sorted(captions_of)
        images = np.stack([read_image(_find_image(folder, name), size) for name in names])
        captions = [captions_of[name] for name in names]
        training_count = len(names) - max(1, round(len(names) * held_out))
        if not training_count:
            raise CourseError(
                f"{folder / JSON} has captions for one image; at least two are needed, one of them held out"
            )
    else:
        splits = captioned_folder(folder, size, held_out=held_out)
        images = np.concatenate([splits.train_images, splits.test_images])
        captions = [list(each) for each in (*splits.train_captions, *splits.test_captions)]
        training_count = len(splits.train_images)
    everything = CaptionedImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), captions)
    return (everything, everything) if held_out == 0 else everything.split(training_count)


def _read_json_captions(table: Path) -> dict[str, list[str]]:
    """Return the captions of each image by its name, from any of the three formats. Raises CourseError for others."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CourseError(f"{table} cannot be read as JSON ({error})") from error
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return {each.file.name: list(each.captions) for each in read_captions(table, table.parent)}
    if isinstance(content, list):
        pairs = [_image_and_caption(table, number, record) for number, record in enumerate(content)]
    elif isinstance(content, dict):
        pairs = [
            (name, caption)
            for name, captions in content.items()
            for caption in (captions if isinstance(captions, list) else [captions])
        ]
    else:
        pairs = []
    captions_of: dict[str, list[str]] = {}
    for name, caption in pairs:
        if not isinstance(caption, str) or not caption.strip():
            raise CourseError(f"{table}: the caption of {name!r} is {caption!r}; expected a text")
        captions_of.setdefault(name, []).append(caption.strip())
    if not captions_of:
        raise CourseError(f'{table} holds no captions; expected {{"dog.jpg": "a dog on the sand", …}}')
    return captions_of


def _image_and_caption(table: Path, number: int, record: Any) -> tuple[str, Any]:
    if not isinstance(record, dict) or not isinstance(record.get("image"), str) or "caption" not in record:
        raise CourseError(f'{table}, record {number}: expected {{"image": …, "caption": …}}, not {record!r}')
    return record["image"], record["caption"]


def _find_image(folder: Path, name: str) -> Path:
    candidates = [folder / name, folder / "images" / name, folder / "Images" / name]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise CourseError(f"{folder} has a caption for {name}, but no such image there or in {folder / 'images'}")
    return file


# ── Tokens and batches ────────────────────────────────────────────────────────────────────────────────────────────────


def train_tokenizer(captions: Sequence[Sequence[str]], vocab_size: int) -> Tokenizer:
    """Train byte pair encoding on the captions, with at most `vocab_size` tokens; single pairs are not merged."""
    texts = [caption for of_one_image in captions for caption in of_one_image]
    return Tokenizer.train(texts, vocab_size, special_tokens=(BEGIN_TOKEN, END_TOKEN), min_frequency=2)


def encode_captions(
    tokenizer: Tokenizer, captions: Sequence[str]
) -> tuple[Int[Tensor, "captions text"], Int[Tensor, "captions text"]]:
    """Return the token ids [begin, caption…, end], padded to the longest, and segments: 0, and −1 for padding."""
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
    rows = [torch.tensor([begin, *tokenizer.encode(caption), end]) for caption in captions]
    token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    inside = torch.arange(token_ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return token_ids, torch.where(inside, 0, -1)


class CaptionBatches:
    """Shuffle captions into batches (pixels, token ids, segments); `batches(number)` is a pure function.

    blind   replace each image by a gray one, for the blind baseline
    """

    def __init__(
        self, images: CaptionedImages, tokenizer: Tokenizer, *, batch_size: int, seed: int, blind: bool = False
    ):
        captions = [caption for of_one_image in images.captions for caption in of_one_image]
        image_of_caption = torch.tensor([row for row, each in enumerate(images.captions) for _ in each])
        token_ids, segments = encode_captions(tokenizer, captions)
        # A folder may hold fewer captions than a batch.
        size = min(batch_size, len(captions))
        self.rows = Batches(image_of_caption, token_ids, segments, batch_size=size, seed=seed)
        self.pixels = gray_images(images.pixels) if blind else images.pixels

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        image_of_caption, token_ids, segments = self.rows(number)
        longest = int((segments >= 0).sum(dim=1).max())
        return self.pixels[image_of_caption], token_ids[:, :longest], segments[:, :longest]


def gray_images(pixels: UInt8[Tensor, "images 3 size size"]) -> UInt8[Tensor, "images 3 size size"]:
    """Return as many uniformly gray images: the input of the blind baseline."""
    return torch.full_like(pixels, GRAY)
