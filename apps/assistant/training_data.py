"""Records as training batches: images are opened when their batch is computed, conversations become token ids."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apps.assistant.record_checks import RecordRules
from apps.assistant.records import IMAGE, BadRecord, Record, read_records, refuse_or_skip
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared.distributed import gather_values, is_main
from shared.finetuning import collate, sft_loss
from shared.images import open_image
from shared.tokenizers import ChatTemplate, EncodedConversation
from shared.training import LossSum

TOKENS_PER_TURN = 8
"""An upper bound of the tokens that the chat template adds to a turn, its role's name excepted."""


class Batch(NamedTuple):
    """Hold a batch of conversations, and their images in reading order (None if there are none)."""

    token_ids: Int[Tensor, "batch text"]
    loss_mask: Bool[Tensor, "batch text"]
    segments: Int[Tensor, "batch text"]
    pixels: Float[Tensor, "images 3 height width_px"] | None


class FittedRecord(NamedTuple):
    """Hold a conversation that fits into the context, with all of its image's tokens or none.

    image  None when the conversation has no image, or was cut before it
    error  why there is nothing to train on, or None
    """

    conversation: EncodedConversation
    image: Path | None
    error: str | None


@dataclass(frozen=True)
class TrainingData:
    """Hold the training records of a stage, and what turns them into tensors.

    image_tokens    number of tokens per image
    context         longer conversations are cut here
    caption_prompt  prompt of flat records without one
    """

    records: Sequence[Record]
    template: ChatTemplate
    preprocessing: ImagePreprocessing
    image_tokens: int
    context: int
    caption_prompt: str

    @property
    def fingerprint(self) -> str:
        """Return a hash of the records' turns in order, and of their images' names, sizes and modification times."""
        digest = hashlib.sha256()
        for record in self.records:
            values: list[object] = [[turn.role, turn.text] for turn in record.turns]
            if record.image is not None:
                state = record.image.stat()
                values += [record.image.name, state.st_size, state.st_mtime_ns]
            digest.update(json.dumps(values).encode())
        return digest.hexdigest()

    def fit(self, record: Record) -> FittedRecord:
        """Encode a record and cut it to the context, or say why that leaves nothing to train on.

        A cut inside an image would leave a part of its tokens, for which there are no features. Then the turn with the
        image and all later ones are left out.
        """
        counts = [self.image_tokens] if record.image is not None else []
        uncut = self.template.encode(record.turns, image_token_counts=counts)
        special_tokens = self.template.tokenizer.special_tokens
        length, image_id = self.context, special_tokens[IMAGE]
        image_tokens_left = uncut.token_ids[:length].count(image_id)
        if image_tokens_left not in (0, sum(counts)):
            first = uncut.token_ids.index(image_id)
            turn_id = special_tokens[self.template.turn]
            length = max(position for position in range(first) if uncut.token_ids[position] == turn_id)
        conversation = EncodedConversation(uncut.token_ids[:length], uncut.loss_mask[:length])
        image = record.image if image_id in conversation.token_ids else None
        error = None
        if not any(conversation.loss_mask[1:]):
            error = f"no answer within the first {self.context} tokens"
            if length < self.context:
                error = f"the {self.image_tokens} tokens of its image end after the first {self.context}, the context"
        return FittedRecord(conversation, image, error)

    def length_error(self, record: Record) -> str | None:
        """Return why the record leaves nothing to train on within the context, as `fit` does, or None."""
        # A text has at most as many tokens as bytes, which normalization may triple outside ASCII: most records are
        # short enough and need not be encoded.
        limit = self.image_tokens
        for turn in record.turns:
            size = len(turn.text.encode()) * (1 if turn.text.isascii() else 3)
            limit += size + len(turn.role) + TOKENS_PER_TURN
        return None if limit <= self.context else self.fit(record).error

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return these records as a batch. Raises CourseError when an image has become unreadable since the check."""
        fitted = [self.fit(self.records[row]) for row in rows]
        token_ids, loss_mask, segments = collate([each.conversation for each in fitted])
        images = [open_image(each.image) for each in fitted if each.image is not None]
        return Batch(token_ids, loss_mask, segments, self.preprocessing(images) if images else None)

    def loss(self, model: Llava, rows: Int[Tensor, "batch"]) -> tuple[LossSum, dict[str, LossSum]]:
        """Return the cross-entropy of the answers' tokens, in nats, and the accuracy of their greedy prediction.

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
        return sft_loss(logits, token_ids, loss_mask), {"accuracy": LossSum.of(correct.sum(), correct.numel())}


def check_records(
    file: Path | str,
    images: Path | str | None,
    data: TrainingData,
    *,
    rules: RecordRules = RecordRules(),  # noqa: B008 – it is frozen
    check_images: bool = True,
) -> tuple[dict[int, Record], list[BadRecord]]:
    """Return the records of a file that training can use, by their indices, and all others, as `read_records` does.

    Besides, a record must leave an answer within the context. Training and the check of a file both call this.
    """
    good, bad = read_records(file, images, rules=rules, check_images=check_images, caption_prompt=data.caption_prompt)
    errors = {index: error for index, record in good.items() if (error := data.length_error(record))}
    bad += [BadRecord(index, error, error) for index, error in errors.items()]
    remaining = {index: record for index, record in good.items() if index not in errors}
    return remaining, sorted(bad, key=lambda each: each.index)


def read_training_data(
    files: Sequence[tuple[Path, Path | None]],
    empty: TrainingData,
    *,
    rules: RecordRules = RecordRules(),  # noqa: B008 – it is frozen
    skip_bad: bool,
) -> TrainingData:
    """Return `empty` with the good records of all files; each file comes with its folder of images, or None.

    The first of several processes checks the images and tells the others which records are bad.
    Raises CourseError, which names them, when there are bad records and `skip_bad` is False.
    """
    records: list[Record] = []
    for file, images in files:
        good, bad = check_records(file, images, empty, rules=rules, check_images=is_main())
        bad_indices = set(gather_values([each.index for each in bad])[0])
        remaining = [record for index, record in good.items() if index not in bad_indices]
        if is_main():
            refuse_or_skip(file, len(remaining), bad, skip_bad)
        records += remaining
    return replace(empty, records=records)
