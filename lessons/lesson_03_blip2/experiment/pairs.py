"""What the bridge learns from: pictures of the toy world with captions, and with questions and their answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.documents import DESCRIBE_PROMPT
from data.toybox.language import caption
from data.toybox.questions import question_at
from data.toybox.scene import Scene
from data.toybox.tensors import render_tensors
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model.pretrained import vision_features
from shared.tokenizers import Tokenizer

KINDS = ("colour", "shape", "size", "texture", "place")
"""Questions about one thing, which the language model answers well when it is told in words (`bridges.read_captions`)."""
STOP = "\n"


@dataclass(frozen=True)
class Seen:
    """Scenes, and what the eye made of each."""

    scenes: Sequence[Scene]
    features: Float[Tensor, "pictures patches context"]


def looked_at(eye: VisionTransformer, scenes: Sequence[Scene], device: str) -> Seen:
    """Let the frozen eye look at each scene, once."""
    return Seen(scenes, vision_features(eye, render_tensors(scenes), device).cpu())


@dataclass(frozen=True)
class Pairs:
    """Pictures, by what the eye made of them, each with a text: row i of one belongs to row i of the others.

    tokens    the prompt, what is to be written, the end of the line
    segments  0 for a token, −1 for padding
    prompts   how many tokens of each row are given when it is asked
    texts     what is to be written: a caption, or an answer
    """

    features: Float[Tensor, "pictures patches context"]
    tokens: Int[Tensor, "pictures text"]
    segments: Int[Tensor, "pictures text"]
    prompts: Int[Tensor, "pictures"]
    texts: Sequence[str]
    scenes: Sequence[Scene]
    kinds: Sequence[str]

    def given(self, rows: Int[Tensor, "some"]) -> list[Int[Tensor, "prompt"]]:
        """The prompts of some rows."""
        return [self.tokens[row, : self.prompts[row]] for row in rows]


def captioned(seen: Seen, tokenizer: Tokenizer) -> Pairs:
    """Scenes with a caption each that tells all: what the first stage compares, matches and writes.

    (These begin as documents do. What the second stage asks for follows the image's vectors, as it would follow a caption.)
    """
    texts = [caption(scene, "places") for scene in seen.scenes]
    return _pairs(seen, tokenizer, [""] * len(texts), texts, ["caption"] * len(texts))


def told(seen: Seen, tokenizer: Tokenizer) -> Pairs:
    """Scenes, each with the question what is there, and a caption of colours and shapes as the answer."""
    texts = [caption(scene, "colours") for scene in seen.scenes]
    return _pairs(seen, tokenizer, [DESCRIBE_PROMPT] * len(texts), texts, ["caption"] * len(texts))


def questioned(
    eye: VisionTransformer,
    tokenizer: Tokenizer,
    split: str,
    seed: int,
    count: int,
    objects: tuple[int, int],
    device: str,
) -> Pairs:
    """Scenes of a split with a question each, of all `KINDS` in equal parts."""
    asked = [question_at(split, seed, number, KINDS[number % len(KINDS)], objects) for number in range(count)]
    seen = looked_at(eye, [scene for scene, _ in asked], device)
    prompts, answers = [question.text for _, question in asked], [question.answer for _, question in asked]
    return _pairs(seen, tokenizer, prompts, answers, [question.type for _, question in asked])


def _pairs(
    seen: Seen, tokenizer: Tokenizer, prompts: Sequence[str], texts: Sequence[str], kinds: Sequence[str]
) -> Pairs:
    rows, given = [], []
    for prompt, text in zip(prompts, texts, strict=True):
        begin = [] if prompt else [tokenizer.special_tokens[BEGIN_TOKEN]]
        given.append(len(begin) + len(tokenizer.encode(prompt)))
        # A space belongs to the word after it.
        rows.append([*begin, *tokenizer.encode(f"{prompt} {text}{STOP}" if prompt else text + STOP)])
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    segments = torch.where(torch.arange(longest) < torch.tensor(list(map(len, rows)))[:, None], 0, -1)
    return Pairs(seen.features, tokens, segments, torch.tensor(given), texts, seen.scenes, kinds)


def joined(first: Pairs, second: Pairs) -> Pairs:
    """Both together."""
    longest = max(first.tokens.shape[1], second.tokens.shape[1])

    def widened(x: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(x, (0, longest - x.shape[1]), value=value)

    return Pairs(
        torch.cat([first.features, second.features]),
        torch.cat([widened(first.tokens, 0), widened(second.tokens, 0)]),
        torch.cat([widened(first.segments, -1), widened(second.segments, -1)]),
        torch.cat([first.prompts, second.prompts]),
        [*first.texts, *second.texts],
        [*first.scenes, *second.scenes],
        [*first.kinds, *second.kinds],
    )


@dataclass
class UniqueCaptions:
    """Batches in which no two captions are alike: two pictures that share one would be each other's false negatives.

    `batch_at(number)` is a pure function of the number.
    """

    pairs: Pairs
    batch_size: int
    seed: int

    def __call__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        generator, chosen = np.random.default_rng([self.seed, number]), {}
        while len(chosen) < self.batch_size:
            row = int(generator.integers(len(self.pairs.texts)))
            chosen.setdefault(self.pairs.texts[row], row)
        rows = torch.tensor(list(chosen.values()))
        return self.pairs.features[rows], self.pairs.tokens[rows], self.pairs.segments[rows]


def asked(segments: Int[Tensor, "batch text"], prompts: Int[Tensor, "batch"]) -> Bool[Tensor, "batch text"]:
    """Which tokens the second stage's loss asks for: a caption's words, an answer, and the end of either; no question."""
    place = torch.arange(segments.shape[1], device=segments.device)
    return (place >= prompts[:, None]) & (segments >= 0)
