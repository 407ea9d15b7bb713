"""Records as training batches: images are opened when their batch is computed, conversations become token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apps.assistant.images import open_image
from apps.assistant.records import BadRecord, Record, read_records, refuse_or_skip
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared.distributed import gather_values, is_main
from shared.finetuning import collate, sft_loss
from shared.tokenizers import ChatTemplate, EncodedConversation

TOKENS_PER_TURN = 8
"""An upper bound of the tokens that the chat template adds to a turn, its role's name excepted."""


class Batch(NamedTuple):
    """Hold a batch of conversations, and their images in reading order (None if there are none)."""

    token_ids: Int[Tensor, "batch text"]
    loss_mask: Bool[Tensor, "batch text"]
    segments: Int[Tensor, "batch text"]
    pixels: Float[Tensor, "images 3 height width_px"] | None


@dataclass(frozen=True)
class TrainingData:
    """Hold the training records of a stage, and what turns them into tensors.

    image_tokens  number of tokens per image
    context       longer conversations are cut here
    """

    records: Sequence[Record]
    template: ChatTemplate
    preprocessing: ImagePreprocessing
    image_tokens: int
    context: int

    def encode(self, record: Record) -> EncodedConversation:
        """Encode a record as token ids, cut to the context."""
        counts = [self.image_tokens] if record.image is not None else []
        conversation = self.template.encode(record.turns, image_token_counts=counts)
        return EncodedConversation(conversation.token_ids[: self.context], conversation.loss_mask[: self.context])

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return these records as a batch. Raises CourseError when an image has become unreadable since the check."""
        records = [self.records[row] for row in rows]
        token_ids, loss_mask, segments = collate([self.encode(record) for record in records])
        images = [open_image(record.image) for record in records if record.image is not None]
        return Batch(token_ids, loss_mask, segments, self.preprocessing(images) if images else None)

    def loss(self, model: Llava, rows: Int[Tensor, "batch"]) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the mean cross-entropy of the answers' tokens, in nats, and the accuracy of their greedy prediction.

        The training loop passes row numbers, so that each of several processes opens the images of its own rows only.
        """
        batch = self.batch(rows.tolist())
        token_ids, loss_mask, segments = (tensor.to(rows.device) for tensor in batch[:3])
        features = None
        if batch.pixels is not None:
            with torch.no_grad():  # the vision encoder is frozen in every stage
                features = model.image_features(batch.pixels.to(rows.device))
        logits = model.logits(token_ids, features, segments)
        correct = (logits[:, :-1].argmax(-1) == token_ids[:, 1:])[loss_mask[:, 1:]]
        return sft_loss(logits, token_ids, loss_mask), {"accuracy": correct.float().mean()}

    def has_answer(self, record: Record) -> bool:
        """Return whether an answer begins within the context."""
        # A text has at most as many tokens as bytes: most records are short enough and need not be encoded.
        turn_lengths = (len(turn.text.encode()) + len(turn.role) + TOKENS_PER_TURN for turn in record.turns)
        return self.image_tokens + sum(turn_lengths) <= self.context or any(self.encode(record).loss_mask)


def read_training_data(
    files: Sequence[tuple[Path, Path | None]], empty: TrainingData, *, skip_bad: bool
) -> TrainingData:
    """Return `empty` with the good records of all files; each file comes with its folder of images, or None.

    The first of several processes checks the images and tells the others which records are bad.
    Raises CourseError, which names them, when there are bad records and `skip_bad` is False.
    """
    records: list[Record] = []
    for file, images in files:
        good, bad = read_records(file, images, check_images=is_main())
        reason = f"no answer within the first {empty.context} tokens"
        bad += [BadRecord(index, reason) for index, record in good.items() if not empty.has_answer(record)]
        bad_indices = set(gather_values([each.index for each in bad])[0])
        remaining = [record for index, record in good.items() if index not in bad_indices]
        if is_main():
            refuse_or_skip(file, len(remaining), sorted(bad, key=lambda each: each.index), skip_bad)
        records += remaining
    return replace(empty, records=records)
