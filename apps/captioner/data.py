"""Images with captions from your own folder, as tensors and batches for training.

my_images/dog.jpg  my_images/boat.png  …     and one of
my_images/captions.txt or captions.csv       dog.jpg,a dog on the sand          (one caption per line, header optional)
my_images/captions.json                      {"dog.jpg": "a dog on the sand"}   (or a list of several captions)
                                             [{"image": "dog.jpg", "caption": "a dog on the sand"}]
                                             {"images": […], "annotations": […]}  in COCO's format

`data.datasets.caption_tables` reads the table.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from data.datasets.captioned_folder import captioned_folder
from shared.distributed import is_main
from shared.text_files import printable
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
    """Read the training images of a folder and the held-out ones, cropped to size × size.

    held_out   fraction of held-out images, at least one image, drawn from a fixed seed so that all runs on the folder
               hold out the same ones; with 0 both results are the complete folder

    What the folder has besides captioned images is named on stderr.

    Raises CourseError when there is no valid table of captions, or an image is missing or damaged.
    """
    splits = captioned_folder(folder, size, held_out=held_out)
    if splits.note and is_main():
        print(f"note: {printable(folder)}: {splits.note}", file=sys.stderr, flush=True)
    training = _to_tensors(splits.train_images, splits.train_captions)
    return (training, training) if held_out == 0 else (training, _to_tensors(splits.test_images, splits.test_captions))


def _to_tensors(images: np.ndarray, captions: Sequence[Sequence[str]]) -> CaptionedImages:
    return CaptionedImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), [list(each) for each in captions])


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
