"""Training and evaluation data: clips with questions about motion, order, colors and seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.scene import stream
from data.toybox.video.clip import Clip
from data.toybox.video.tensors import render_clip_tensors
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder, vision_features
from lessons.lesson_09_qwen_vl.experiment.clips import Timing, two_event_clip
from lessons.lesson_09_qwen_vl.experiment.reader import merge_order
from shared.tokenizers import Tokenizer

SPLIT_CONTENTS = {"validation": "new scenes of seen combinations", "test": "scenes with an unseen combination"}
ORDER_PURPOSE = 210
QUESTIONS = {
    "direction": "where to?",
    "order": "what first?",
    "first color": "color at first?",
    "last color": "color at last?",
}
"""Questions whose answers do not depend on the length of a clip."""
SECOND = "second"
SECOND_TEXT = "at what second?"
PADDING = 0


def answer(clip: Clip, question_type: str) -> str:
    """Return the answer to a question about a clip of `two_event_clip`, in one word or number."""
    (motion,) = (event for event in clip.events if event.kind == "move")
    (change,) = (event for event in clip.events if event.kind == "color")
    if question_type == "direction":
        return str(motion.direction)
    if question_type == "order":
        return "move" if motion.start < change.start else "color"
    if question_type == SECOND:
        return str(motion.end // 1000)  # when the first frame after the motion is filmed
    return (change.before if question_type == "first color" else change.after).color


class FrameBank(NamedTuple):
    """Features of the different frames of some clips, and where each clip's frames are among them.

    features  of each different frame, patches in merge order
    index     row of `features` for each frame of each clip
    """

    features: Float[Tensor, "different patches width"]
    index: Int[Tensor, "clips frames"]


@torch.no_grad()
def encode_clips(clips: Sequence[Clip], timing: Timing, device: str) -> FrameBank:
    """Encode every different frame once with lesson 2's frozen image encoder."""
    index: dict[bytes, int] = {}
    frames, rows = [], []
    for first in range(0, len(clips), 64):
        part = clips[first : first + 64]
        for clip_frames in render_clip_tensors(part, [timing.times] * len(part)):
            row = []
            for frame in clip_frames:
                key = frame.numpy().tobytes()
                if key not in index:
                    index[key] = len(frames)
                    frames.append(frame)
                row.append(index[key])
            rows.append(row)
    features = vision_features(load_vision_encoder(), torch.stack(frames), device)
    return FrameBank(merge_order(features), torch.tensor(rows))


@dataclass(frozen=True)
class ClipQuestions:
    """Questions about clips of one timing; row i of every tensor belongs to clip i.

    token_ids    the questions and answers, several per clip
    answer_mask  the tokens of answers
    first        the type of each clip's first question, and which tokens its answer has
    """

    bank: FrameBank
    timing: Timing
    token_ids: Int[Tensor, "clips text"]
    answer_mask: Bool[Tensor, "clips text"]
    first_types: Sequence[str]
    first_mask: Bool[Tensor, "clips text"]


def clip_questions(
    tokenizer: Tokenizer, split: str, seed: int, numbers: range, timing: Timing, types: Sequence[str], device: str
) -> ClipQuestions:
    """Return clips with one question of each type, in an order of their own per clip."""
    clips = [two_event_clip(split, seed, number, timing) for number in numbers]
    rows, masks, firsts, first_types = [], [], [], []
    for number, clip in zip(numbers, clips, strict=True):
        rng = stream(seed, number, ORDER_PURPOSE)
        order = [question_type for _, question_type in sorted((rng.random(), each) for each in types)]
        row: list[int] = []
        mask: list[bool] = []
        for question_type in order:
            text = SECOND_TEXT if question_type == SECOND else QUESTIONS[question_type]
            prompt = tokenizer.encode(text)
            reply = tokenizer.encode(f" {answer(clip, question_type)}\n")
            row += prompt + reply
            mask += [False] * len(prompt) + [True] * len(reply)
            if question_type == order[0]:
                firsts.append(list(mask))
        rows.append(row)
        masks.append(mask)
        first_types.append(order[0])
    longest = max(map(len, rows))
    return ClipQuestions(
        encode_clips(clips, timing, device),
        timing,
        torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows]),
        _padded_masks(masks, longest),
        first_types,
        _padded_masks(firsts, longest),
    )


def _padded_masks(masks: Sequence[list[bool]], longest: int) -> Bool[Tensor, "clips text"]:
    return torch.tensor([mask + [False] * (longest - len(mask)) for mask in masks])
