"""Training and test data: images of the toy world with captions, and with questions and answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.interviews import DESCRIBE_PROMPT
from data.toybox.language import caption
from data.toybox.questions import question_at
from data.toybox.scene import Scene
from data.toybox.tensors import render_tensors
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import vision_features
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN
from shared.training.batches import fit_batch_size

QUESTION_TYPES = ("color", "shape", "size", "texture", "place")
"""Types of questions about one object, which the language model answers well when the scene is given as text."""
STOP = "\n"


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes and their image features."""

    scenes: Sequence[Scene]
    image_features: Float[Tensor, "images patches context"]


def encode_scenes(vision_encoder: VisionTransformer, scenes: Sequence[Scene], device: str) -> EncodedScenes:
    """Encode the image of each scene with the frozen vision encoder."""
    return EncodedScenes(scenes, vision_features(vision_encoder, render_tensors(scenes), device).cpu())


@dataclass(frozen=True)
class ImageTextPairs:
    """Images, represented by their features, each with a prompt and a text; all fields have one row per pair.

    token_ids       prompt, text, end of line, padding
    segments        0 for a token, −1 for padding
    prompt_lengths  number of tokens that belong to the prompt
    texts           the caption or the answer
    question_types  type of the question, or "caption"
    """

    image_features: Float[Tensor, "images patches context"]
    token_ids: Int[Tensor, "images text"]
    segments: Int[Tensor, "images text"]
    prompt_lengths: Int[Tensor, "images"]
    texts: Sequence[str]
    scenes: Sequence[Scene]
    question_types: Sequence[str]

    def prompts(self, rows: Int[Tensor, "some"]) -> list[Int[Tensor, "prompt"]]:
        """Return the token ids of the prompts of some rows."""
        return [self.token_ids[row, : self.prompt_lengths[row]] for row in rows]

    def first(self, count: int) -> "ImageTextPairs":
        """Return the first `count` pairs."""
        return ImageTextPairs(
            self.image_features[:count],
            self.token_ids[:count],
            self.segments[:count],
            self.prompt_lengths[:count],
            self.texts[:count],
            self.scenes[:count],
            self.question_types[:count],
        )

    def loss_mask(self) -> Bool[Tensor, "images text"]:
        """Return the tokens that the second stage is trained to predict: text and end of line, but not the prompt."""
        positions = torch.arange(self.segments.shape[1], device=self.segments.device)
        return (positions >= self.prompt_lengths[:, None]) & (self.segments >= 0)


def full_captions(encoded: EncodedScenes, tokenizer: Tokenizer) -> ImageTextPairs:
    """Pair scenes with captions of every attribute, without a prompt, for the first stage.

    The texts begin with the document's first token. In the second stage the image's vectors take its place.
    """
    texts = [caption(scene, "places") for scene in encoded.scenes]
    return _tokenize(encoded, tokenizer, [""] * len(texts), texts, ["caption"] * len(texts))


def short_captions(encoded: EncodedScenes, tokenizer: Tokenizer) -> ImageTextPairs:
    """Pair scenes with captions of colors and shapes, after a prompt that asks for a description."""
    texts = [caption(scene, "colors") for scene in encoded.scenes]
    return _tokenize(encoded, tokenizer, [DESCRIBE_PROMPT] * len(texts), texts, ["caption"] * len(texts))


def questions_and_answers(
    vision_encoder: VisionTransformer,
    tokenizer: Tokenizer,
    split: str,
    seed: int,
    count: int,
    objects: tuple[int, int],
    device: str,
) -> ImageTextPairs:
    """Pair scenes of a split with one question each, equally many of every type."""
    pairs = [
        question_at(split, seed, number, QUESTION_TYPES[number % len(QUESTION_TYPES)], objects)
        for number in range(count)
    ]
    encoded = encode_scenes(vision_encoder, [scene for scene, _ in pairs], device)
    prompts, answers = [question.text for _, question in pairs], [question.answer for _, question in pairs]
    return _tokenize(encoded, tokenizer, prompts, answers, [question.type for _, question in pairs])


def _tokenize(
    encoded: EncodedScenes,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    texts: Sequence[str],
    question_types: Sequence[str],
) -> ImageTextPairs:
    rows, prompt_lengths = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        begin = [] if prompt else [tokenizer.special_tokens[BEGIN_TOKEN]]
        prompt_lengths.append(len(begin) + len(tokenizer.encode(prompt)))
        # A space is tokenized together with the word after it.
        rows.append([*begin, *tokenizer.encode(f"{prompt} {text}{STOP}" if prompt else text + STOP)])
    longest = max(map(len, rows))
    token_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    segments = torch.where(torch.arange(longest) < torch.tensor(list(map(len, rows)))[:, None], 0, -1)
    return ImageTextPairs(
        encoded.image_features,
        token_ids,
        segments,
        torch.tensor(prompt_lengths),
        texts,
        encoded.scenes,
        question_types,
    )


def concatenate(first: ImageTextPairs, second: ImageTextPairs) -> ImageTextPairs:
    """Return the pairs of both, padded to one length."""
    longest = max(first.token_ids.shape[1], second.token_ids.shape[1])

    def pad(x: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(x, (0, longest - x.shape[1]), value=value)

    return ImageTextPairs(
        torch.cat([first.image_features, second.image_features]),
        torch.cat([pad(first.token_ids, 0), pad(second.token_ids, 0)]),
        torch.cat([pad(first.segments, -1), pad(second.segments, -1)]),
        torch.cat([first.prompt_lengths, second.prompt_lengths]),
        [*first.texts, *second.texts],
        [*first.scenes, *second.scenes],
        [*first.question_types, *second.question_types],
    )


@dataclass
class UniqueCaptionBatches:
    """Batches without equal captions: two images with the same caption are each other's false negatives.

    `batches(number)` is a pure function of the number. Fewer different captions than `batch_size` make smaller batches.
    """

    pairs: ImageTextPairs
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        self.batch_size = fit_batch_size(self.batch_size, len(set(self.pairs.texts)))

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = np.random.default_rng([self.seed, number])
        row_by_caption: dict[str, int] = {}
        while len(row_by_caption) < self.batch_size:
            row = int(generator.integers(len(self.pairs.texts)))
            row_by_caption.setdefault(self.pairs.texts[row], row)
        rows = torch.tensor(list(row_by_caption.values()))
        return self.pairs.image_features[rows], self.pairs.token_ids[rows], self.pairs.segments[rows]
