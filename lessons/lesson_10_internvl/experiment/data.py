"""Two corpora: text alone, and images with questions and answers; and the streams of documents that arms train on."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.conversations import PURPOSE, SceneSetting, question_turns, scene_setting
from data.toybox.documents import document_at
from data.toybox.heldout import scene_at
from data.toybox.questions import question_at
from data.toybox.scene import stream
from lessons.lesson_05_llava.model import encode_interview
from lessons.lesson_10_internvl.experiment.base_model import IMAGE_TOKENS, encode_scenes
from lessons.lesson_10_internvl.model import Corpus, CorpusMixer
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN

SPLIT_CONTENTS = {
    "validation": "new scenes and texts of seen combinations and rules",
    "test": "scenes with an unseen combination; texts with unseen combinations and rules",
}
TEXT, MULTIMODAL = "text", "multimodal"
Order = Literal["mixed", "post-hoc", "multimodal"]
TEXT_FRACTION = 0.25
"""Tokens of text alone among all tokens, as in InternVL3 (arXiv:2504.10479, section 2.2)."""
QUESTIONS = 4
"""Most questions per training image."""


class Document(NamedTuple):
    """A document: its token ids, which of them are in the loss, and the features of its image, if it has one."""

    token_ids: list[int]
    loss_mask: list[bool]
    features: Float[Tensor, "side side width"] | None = None


class DocumentBatch(NamedTuple):
    """Documents, one per row, padded at the end.

    features  of the images, in the order of the rows that have one
    segments  0, and −1 for padding
    """

    features: Float[Tensor, "images side side width"]
    token_ids: Int[Tensor, "rows tokens"]
    loss_mask: Bool[Tensor, "rows tokens"]
    segments: Int[Tensor, "rows tokens"]


# ── Corpora ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def text_corpus(tokenizer: Tokenizer, split: str, seed: int, count: int) -> list[Document]:
    """Return documents of text alone (`data.toybox.documents`); every token but the first is in the loss."""
    documents = []
    for number in range(count):
        token_ids = [tokenizer.special_tokens[BEGIN_TOKEN], *tokenizer.encode(document_at(split, seed, number))]
        documents.append(Document(token_ids, [False] + [True] * (len(token_ids) - 1)))
    return documents


def image_corpus(tokenizer: Tokenizer, seed: int, count: int, objects: Sequence[int], device: str) -> list[Document]:
    """Return training images with up to `QUESTIONS` questions each; the tokens of answers are in the loss."""
    setting = scene_setting(objects)
    scenes = [scene_at("train", seed, number, setting.objects) for number in range(count)]
    documents = []
    for number, (scene, features) in enumerate(zip(scenes, encode_scenes(scenes, device), strict=True)):
        turns = question_turns(scene, scenes[number - 1], QUESTIONS, setting, stream(seed, number, PURPOSE))
        encoded = encode_interview(tokenizer, turns, image_token_counts=[IMAGE_TOKENS])
        documents.append(Document(encoded.token_ids, encoded.loss_mask, features))
    return documents


def evaluation_images(
    tokenizer: Tokenizer, split: str, seed: int, count: int, setting: SceneSetting, device: str
) -> tuple[list[Document], list[str]]:
    """Return one question per image, and the type of each: all types and all answers of a type equally often."""
    types = setting.question_types
    pairs = [question_at(split, seed, number, types[number % len(types)], setting.objects) for number in range(count)]
    features = encode_scenes([scene for scene, _ in pairs], device)
    documents = []
    for (_, question), grid in zip(pairs, features, strict=True):
        turns = [(question.text, question.answer)]
        encoded = encode_interview(tokenizer, turns, image_token_counts=[IMAGE_TOKENS])
        documents.append(Document(encoded.token_ids, encoded.loss_mask, grid))
    return documents, [question.type for _, question in pairs]


# ── Streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def token_stream(
    corpora: dict[str, list[Document]], text_fraction: float, tokens: int, seed: int
) -> list[tuple[str, Document]]:
    """Return documents of the mixture, with the names of their corpora, until they have at least `tokens` tokens."""
    fractions = {TEXT: text_fraction, MULTIMODAL: 1 - text_fraction}
    mixer = CorpusMixer(
        {
            name: Corpus([len(document.token_ids) for document in documents], fractions[name])
            for name, documents in corpora.items()
        },
        seed,
    )
    drawn: list[tuple[str, Document]] = []
    while sum(mixer.tokens.values()) < tokens:
        draw = next(mixer)
        drawn.append((draw.corpus, corpora[draw.corpus][draw.document]))
    return drawn


def stages_of(corpora: dict[str, list[Document]], order: Order, tokens: int, seed: int) -> list[list[Document]]:
    """Return the documents of each training stage; all orders have equally many tokens.

    mixed       one stage with both corpora from the start
    post-hoc    the same documents in two stages: first all images, then all texts
    multimodal  one stage of images
    """
    drawn = token_stream(corpora, 0.0 if order == "multimodal" else TEXT_FRACTION, tokens, seed)
    if order == "post-hoc":
        return [[document for name, document in drawn if name == corpus] for corpus in (MULTIMODAL, TEXT)]
    return [[document for _, document in drawn]]


def collate(documents: Sequence[Document], padding: int = 0) -> DocumentBatch:
    """Return documents as one batch."""
    longest = max(len(document.token_ids) for document in documents)
    token_ids = torch.full((len(documents), longest), padding)
    loss_mask = torch.zeros(len(documents), longest, dtype=torch.bool)
    segments = torch.full((len(documents), longest), -1)
    for row, document in enumerate(documents):
        length = len(document.token_ids)
        token_ids[row, :length] = torch.tensor(document.token_ids)
        loss_mask[row, :length] = torch.tensor(document.loss_mask)
        segments[row, :length] = 0
    grids = [document.features for document in documents if document.features is not None]
    features = torch.stack(grids) if grids else torch.zeros(0, 2, 2, 1)
    return DocumentBatch(features, token_ids, loss_mask, segments)


class DocumentBatches:
    """Batches of a stream in its order; `batches(index)` is a pure function of the index.

    Documents that do not fill the last batch are left out, unless there is no other batch.
    """

    def __init__(self, documents: Sequence[Document], batch_size: int):
        self.documents, self.batch_size = documents, batch_size

    def __len__(self) -> int:
        return max(1, len(self.documents) // self.batch_size)

    def __call__(self, index: int) -> DocumentBatch:
        first = index % len(self) * self.batch_size
        return collate(self.documents[first : first + self.batch_size])
