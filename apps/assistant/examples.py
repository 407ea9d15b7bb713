"""Records as batches to learn from: pictures looked at when their turn comes, conversations as rows of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from apps.assistant.pictures import open_picture
from apps.assistant.records import Bad, Record, read_records, refuse_or_skip
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from shared.distributed import gather_values, is_main
from shared.finetuning import collate, sft_loss
from shared.tokenizers import ChatTemplate, EncodedConversation


class Batch(NamedTuple):
    """Conversations side by side, and the pictures among them in reading order (None where there are none)."""

    tokens: Int[Tensor, "batch text"]
    answers: Bool[Tensor, "batch text"]
    segments: Int[Tensor, "batch text"]
    pixels: Float[Tensor, "images 3 height width_px"] | None


@dataclass(frozen=True)
class Examples:
    """All that a stage learns from.

    image_tokens  how many tokens a picture takes
    context       longer conversations are cut there
    """

    records: Sequence[Record]
    template: ChatTemplate
    preprocessing: ImagePreprocessing
    image_tokens: int
    context: int

    def conversation(self, record: Record) -> EncodedConversation:
        """A record as tokens, cut where the context ends."""
        images = [self.image_tokens] if record.image is not None else []
        whole = self.template.encode(record.turns, image_token_counts=images)
        return EncodedConversation(whole.token_ids[: self.context], whole.loss_mask[: self.context])

    def batch(self, rows: Sequence[int]) -> Batch:
        """These records. Raises CourseError when a picture has become unreadable since the records were checked."""
        chosen = [self.records[row] for row in rows]
        tokens, answers, segments = collate([self.conversation(record) for record in chosen])
        pictures = [open_picture(record.image) for record in chosen if record.image is not None]
        return Batch(tokens, answers, segments, self.preprocessing(pictures) if pictures else None)

    def loss(self, model: nn.Module, rows: Int[Tensor, "batch"]) -> tuple[Tensor, dict[str, Tensor]]:
        """The surprise at the answers' tokens, in nats, and the share of them that would have been said.

        The training loop hands out numbers of records, and each of several processes opens the pictures of its own alone.
        """
        batch = self.batch(rows.tolist())
        tokens, answers, segments = (x.to(rows.device) for x in batch[:3])
        features = None
        if batch.pixels is not None:
            with torch.no_grad():  # the eye learns in no stage
                features = model.image_features(batch.pixels.to(rows.device))
        logits = model.logits(tokens, features, segments)
        right = (logits[:, :-1].argmax(-1) == tokens[:, 1:])[answers[:, 1:]].float().mean()
        return sft_loss(logits, tokens, answers), {"right": right}

    def has_answer(self, record: Record) -> bool:
        """Whether an answer begins before the context ends."""
        # No text has more tokens than bytes, and few texts are long: most need not be written to know that they fit.
        bound = self.image_tokens + sum(len(turn.text.encode()) + len(turn.role) + 8 for turn in record.turns)
        return bound <= self.context or any(self.conversation(record).loss_mask)


def read_examples(files: Sequence[tuple[Path, Path | None]], empty: Examples, *, skip_bad: bool) -> Examples:
    """`empty`, filled with the good records of all files; with each stands the folder of its images, or None for its own.

    Of several processes the first looks at the pictures, and tells the others which records it has found bad.
    Raises CourseError, naming them, when there are bad ones and they are not to be skipped.
    """
    records: list[Record] = []
    for file, images in files:
        good, bad = read_records(file, images, look=is_main())
        lost = f"no answer within the first {empty.context} tokens"
        bad += [Bad(index, lost) for index, record in good.items() if not empty.has_answer(record)]
        left_out = set(gather_values([each.index for each in bad])[0])
        kept = [record for index, record in good.items() if index not in left_out]
        if is_main():
            refuse_or_skip(file, len(kept), sorted(bad, key=lambda each: each.index), skip_bad)
        records += kept
    return replace(empty, records=records)
