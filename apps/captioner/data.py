"""Pictures with captions, from a folder of one's own or from the toy world, as tensors to learn from.

my_pictures/dog.jpg  my_pictures/boat.png  …   and one of
my_pictures/captions.txt or captions.csv       dog.jpg,a dog on the sand          (a line a caption; `image,caption` may head it)
my_pictures/captions.json                      {"dog.jpg": "a dog on the sand"}   (or a list of several captions)
                                               [{"image": "dog.jpg", "caption": "a dog on the sand"}]
                                               {"images": […], "annotations": […]}  as COCO has it
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
from shared.training import Batches

JSON = "captions.json"


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size, and what is said of each: one caption or several."""

    pixels: UInt8[Tensor, "pictures 3 size size"]
    captions: Sequence[Sequence[str]]


# ── A folder of one's own ─────────────────────────────────────────────────────────────────────────────────────────────


def read_folder(folder: Path | str, size: int, *, held_out: float = 0.1) -> tuple[Pictures, Pictures]:
    """The pictures of a folder to learn from and, the last by name, those held out; each cut and brought to size × size.

    held_out   the share that is held out, one picture at least; with 0 both are the whole folder, for a model that is to
               remember a few pictures

    Raises CourseError when there is no table of captions or it makes no sense, and when a picture is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder; expected one with pictures and captions.txt, captions.csv or {JSON}")
    if not 0.0 <= held_out < 1.0:
        raise CourseError(f"the share held out is {held_out}; expected 0 or more and less than 1")
    if (folder / JSON).is_file():
        captions = _json_captions(folder / JSON)
        names = sorted(captions)
        images = np.stack([read_image(_file(folder, name), size) for name in names])
        said = [captions[name] for name in names]
        kept = len(names) - max(1, round(len(names) * held_out))
        if not kept:
            raise CourseError(f"{folder / JSON} has captions for one picture; two are the least, one of them held out")
    else:
        found = captioned_folder(folder, size, held_out=held_out)
        images = np.concatenate([found.train_images, found.test_images])
        said, kept = [*found.train_captions, *found.test_captions], len(found.train_images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    whole = Pictures(pixels, said)
    return (
        (whole, whole)
        if held_out == 0
        else (Pictures(pixels[:kept], said[:kept]), Pictures(pixels[kept:], said[kept:]))
    )


def _json_captions(table: Path) -> dict[str, list[str]]:
    """Every picture's captions by its name, in any of the three spellings. Raises CourseError for another."""
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CourseError(f"{table} cannot be read as JSON ({error})") from error
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return {each.file.name: list(each.captions) for each in read_captions(table, table.parent)}
    if isinstance(content, list):
        pairs = [_pair(table, number, record) for number, record in enumerate(content)]
    elif isinstance(content, dict):
        pairs = [
            (name, caption)
            for name, said in content.items()
            for caption in (said if isinstance(said, list) else [said])
        ]
    else:
        pairs = []
    captions: dict[str, list[str]] = {}
    for name, caption in pairs:
        if not isinstance(caption, str) or not caption.strip():
            raise CourseError(f"{table}: the caption of {name!r} is {caption!r}; expected some words")
        captions.setdefault(name, []).append(caption.strip())
    if not captions:
        raise CourseError(f'{table} holds no captions; expected {{"dog.jpg": "a dog on the sand", …}}')
    return captions


def _pair(table: Path, number: int, record: Any) -> tuple[str, Any]:
    if not isinstance(record, dict) or not isinstance(record.get("image"), str) or "caption" not in record:
        raise CourseError(f'{table}, record {number}: expected {{"image": …, "caption": …}}, not {record!r}')
    return record["image"], record["caption"]


def _file(folder: Path, name: str) -> Path:
    places = [folder / name, folder / "images" / name, folder / "Images" / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise CourseError(f"{folder} has a caption for {name}, but no such picture there or in {folder / 'images'}")
    return found


# ── Tokens and batches ────────────────────────────────────────────────────────────────────────────────────────────────


def caption_tokenizer(captions: Sequence[Sequence[str]], vocabulary: int) -> Tokenizer:
    """Byte pair encoding learned from the captions, of at most so many tokens; rare pairs stay apart."""
    texts = [caption for of_one in captions for caption in of_one]
    return Tokenizer.train(texts, vocabulary, special_tokens=(BEGIN_TOKEN, END_TOKEN), min_frequency=2)


def caption_tokens(
    tokenizer: Tokenizer, captions: Sequence[str]
) -> tuple[Int[Tensor, "captions words"], Int[Tensor, "captions words"]]:
    """[begin, words…, end] of each caption, padded to the longest; and segments, 0 for a word and −1 for padding."""
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
    rows = [torch.tensor([begin, *tokenizer.encode(caption), end]) for caption in captions]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    inside = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return tokens, torch.where(inside, 0, -1)


class CaptionBatches:
    """Shuffled batches (pixels, tokens, segments), a row for each caption; `batches(number)` is a pure function.

    blind   put a gray picture in the place of each, for a baseline that knows how captions go and nothing of the image
    """

    def __init__(self, pictures: Pictures, tokenizer: Tokenizer, *, batch_size: int, seed: int, blind: bool = False):
        captions = [caption for said in pictures.captions for caption in said]
        picture_of = torch.tensor([row for row, said in enumerate(pictures.captions) for _ in said])
        tokens, segments = caption_tokens(tokenizer, captions)
        # A folder may hold fewer captions than a batch would.
        size = min(batch_size, len(captions))
        self.rows = Batches(picture_of, tokens, segments, batch_size=size, seed=seed)
        self.pixels = shown(pictures.pixels, blind)

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        picture_of, tokens, segments = self.rows(number)
        longest = int((segments >= 0).sum(dim=1).max())
        return self.pixels[picture_of], tokens[:, :longest], segments[:, :longest]


def shown(pixels: UInt8[Tensor, "pictures 3 size size"], blind: bool) -> UInt8[Tensor, "pictures 3 size size"]:
    """The pictures; or, to a blind model, as many that are gray all over."""
    return torch.full_like(pixels, 128) if blind else pixels
