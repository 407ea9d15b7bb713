"""Training and evaluation data: short stories of objects, as one image, as several images, and as a video.

A *story* is a clip of the toy world whose objects have different shapes, and each of them moves once. Questions name an
object by its shape. The types of input differ only in the frames:

    image    the middle frame; questions about color, size, texture and place
    images   2 or 4 frames from the first to the last; questions about direction, color, size and texture
    video    8 frames from the first to the last, pooled to 3 × 3 features; the same questions as for several images

A story and the same story played backward are equally likely, so the middle frame does not reveal any direction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.heldout import SPLITS
from data.toybox.questions import TEMPLATES as IMAGE_TEMPLATES
from data.toybox.scene import SceneObject, pick, stream
from data.toybox.video.clip import Clip, Seconds, events_of, objects_at_time
from data.toybox.video.generation import ClipSettings, clip_at
from data.toybox.video.question_types import AXES, TEMPLATES
from data.toybox.video.tensors import normalize_frames, render_clip_tensors
from lessons.lesson_08_onevision.model import (
    EncodedImage,
    EncodedVideo,
    ImageInput,
    ImagePlan,
    LlavaOneVision,
    VideoInput,
    VideoPlan,
    VisualLayout,
    solve_images,
    solve_video,
    visual_token_counts,
)
from shared.finetuning import collate
from shared.tokenizers import ChatTemplate, EncodedConversation, Turn
from shared.tokenizers.special_tokens import IMAGE_TOKEN

SIZE = 32
"""Side of a frame in pixels: one tile."""
LAYOUT = VisualLayout(tile_size=SIZE, side=8, pinpoints=((SIZE, SIZE),), max_tiles=1)
BUDGET = 74
"""Most visual tokens of an input: two images of 36 features and a newline each, or 8 frames of 9 features."""
FRAME_COUNTS = {"image": (1,), "images": (2, 4), "video": (8,)}
"""Frames of an input by its type; several counts are used in turn."""
DIRECTION = "direction"
"""The question type whose answer no single frame shows."""
QUESTION_TYPES = {
    "image": ("color", "size", "texture", "place"),
    "images": (DIRECTION, "color", "size", "texture"),
    "video": (DIRECTION, "color", "size", "texture"),
}
SPLIT_CONTENTS = {"validation": "new stories of seen combinations", "test": "stories with an unseen combination"}
PURPOSE, QUESTION_PURPOSE = 224, 227
"""First purposes of `stream` for the questions of conversations and of single questions, one per split."""
NEXT_STORY = 2**36
"""Distance between the numbers of the clips among which a story is searched."""


class StoryQuestion(NamedTuple):
    """A question about a story: its type, one of `QUESTION_TYPES`, the shape that it names, its text and its answer."""

    type: str
    shape: str
    text: str
    answer: str


# ── Stories and questions ─────────────────────────────────────────────────────────────────────────────────────────────


def stories_from(split: str, seed: int, number: int, objects: tuple[int, int]) -> Iterator[Clip]:
    """Yield the stories with `number` of a split and (least, greatest) `objects`. Raises ValueError as `clip_at`."""
    while True:
        clip = clip_at(split, seed, number, ClipSettings(objects, (4, 8), ("move",)))
        if is_story(clip):
            yield clip
        number += NEXT_STORY


def training_story(seed: int, number: int, objects: tuple[int, int]) -> Clip:
    """Return training story `number`."""
    return next(stories_from("train", seed, number, objects))


def is_story(clip: Clip) -> bool:
    """Return whether the objects have different shapes, and each of them moves once."""
    objects = len(clip.objects)
    moves_once = all(len(events_of(clip, target, "move")) == 1 for target in range(objects))
    return moves_once and len({one.shape for one in clip.objects}) == objects


def questions_about(clip: Clip, kind: str) -> list[StoryQuestion]:
    """Return every question that a type of input answers; for one image they are about the middle frame."""
    if kind == "image":
        states = [state for state in objects_at_time(clip, clip.seconds / 2) if state]
        return [question for state in states for question in appearance_questions(state, QUESTION_TYPES[kind])]
    questions = []
    for target, state in enumerate(clip.objects):
        (move,) = events_of(clip, target, "move")
        text = TEMPLATES[DIRECTION].format(first=state.shape, options=AXES[move.direction or ""])
        questions.append(StoryQuestion(DIRECTION, state.shape, text, move.direction or ""))
        questions += appearance_questions(state, ("color", "size", "texture"))
    return questions


def appearance_questions(state: SceneObject, attributes: Sequence[str]) -> list[StoryQuestion]:
    """Return a question about each of these attributes of an object that is named by its shape."""
    return [
        StoryQuestion(name, state.shape, IMAGE_TEMPLATES[name].format(scene_object=state.shape), getattr(state, name))
        for name in attributes
    ]


def times_of(clip: Clip, frames: int) -> list[Seconds]:
    """Return times at equal distances from the start of a story to its end; the middle for one frame."""
    if frames == 1:
        return [clip.seconds / 2]
    return [clip.seconds * Fraction(index, frames - 1) for index in range(frames)]


# ── Features and visual inputs ────────────────────────────────────────────────────────────────────────────────────────


def plan_of(frames: int) -> ImagePlan | VideoPlan:
    """Return how an input with this number of frames is pooled within `BUDGET` tokens."""
    if frames in FRAME_COUNTS["video"]:
        return solve_video(frames, BUDGET, LAYOUT)
    return solve_images(frames, BUDGET, LAYOUT)


def visual_counts(frames: int) -> list[int]:
    """Return the number of tokens of each image, or of the video; empty for the blind baseline, without frames."""
    if not frames:
        return []
    plan = plan_of(frames)
    if isinstance(plan, VideoPlan):
        return visual_token_counts([VideoInput(frames)], LAYOUT, [plan])
    return visual_token_counts([ImageInput((SIZE, SIZE))] * frames, LAYOUT, [plan] * frames)


def encoded_visuals(features: Float[Tensor, "rows frames patches width"]) -> list[EncodedImage | EncodedVideo] | None:
    """Return the images or videos of all rows in reading order; None without frames."""
    if not features.shape[1]:
        return None
    plan = plan_of(features.shape[1])
    if isinstance(plan, VideoPlan):
        return [EncodedVideo(row, plan) for row in features]
    return [EncodedImage(frame[None], (SIZE, SIZE), plan) for row in features for frame in row]


@dataclass(frozen=True)
class DataSource:
    """Everything that turns stories into model inputs.

    objects      least and greatest number of objects per story
    use_visuals  False for the blind baseline
    """

    model: LlavaOneVision
    template: ChatTemplate
    objects: tuple[int, int] = (1, 1)
    use_visuals: bool = True
    device: str = "cpu"

    @torch.no_grad()
    def features(self, clips: Sequence[Clip], frames: int) -> Float[Tensor, "rows frames patches width"]:
        """Encode every frame once with the frozen vision encoder."""
        if not self.use_visuals:
            return torch.zeros(len(clips), 0, LAYOUT.tile_patches, 1)
        pixels = render_clip_tensors(clips, [times_of(clip, frames) for clip in clips], SIZE).flatten(0, 1)
        batches = [normalize_frames(part.to(self.device)) for part in pixels.split(256)]
        features = torch.cat([self.model.image_features(part).cpu() for part in batches])
        return features.unflatten(0, (len(clips), frames))

    def encode(self, questions: Sequence[StoryQuestion], frames: int) -> EncodedConversation:
        """Encode questions about one input with their answers, one turn each; the first turn has the placeholders."""
        counts = visual_counts(frames) if self.use_visuals else []
        turns = []
        for number, question in enumerate(questions):
            placeholders = f"{IMAGE_TOKEN}\n" * len(counts) if number == 0 else ""
            turns += [Turn("user", placeholders + question.text), Turn("assistant", question.answer)]
        return self.template.encode(turns, image_token_counts=counts)


class Rows(NamedTuple):
    """Conversations about inputs with equally many frames; row i of every tensor belongs to input i.

    loss_mask  the tokens of the answers
    """

    features: Float[Tensor, "rows frames patches width"]
    token_ids: Int[Tensor, "rows text"]
    loss_mask: Bool[Tensor, "rows text"]


# ── Training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_rows(
    source: DataSource, kind: str, seed: int, numbers: range, turns: int, counts: Sequence[int] | None = None
) -> list[Rows]:
    """Return conversations of up to `turns` questions about the stories with these numbers, per number of frames.

    counts  numbers of frames, used in turn; None: those of the type of input
    """
    counts = counts or FRAME_COUNTS[kind]
    sets = []
    for place, frames in enumerate(counts):
        clips, conversations = [], []
        for number in numbers[place :: len(counts)]:
            clips.append(training_story(seed, number, source.objects))
            questions = draw_questions(clips[-1], kind, turns, stream(seed, number, PURPOSE))
            conversations.append(source.encode(questions, frames))
        token_ids, loss_mask, _ = collate(conversations)
        sets.append(Rows(source.features(clips, frames), token_ids, loss_mask))
    return sets


def draw_questions(clip: Clip, kind: str, turns: int, rng: Random) -> list[StoryQuestion]:
    """Return up to `turns` questions about a story in random order, the direction among them if it is asked at all."""
    questions = sorted(questions_about(clip, kind), key=lambda _: rng.random())
    direction = [question for question in questions if question.type == DIRECTION][:1]
    drawn = (direction + [question for question in questions if question not in direction])[:turns]
    return sorted(drawn, key=lambda _: rng.random())


# ── Evaluation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def question_of_number(
    split: str, seed: int, number: int, kind: str, objects: tuple[int, int]
) -> tuple[Clip, StoryQuestion]:
    """Return story and question `number` of a split; the question types of a type of input alternate."""
    rng = stream(seed, number, QUESTION_PURPOSE + SPLITS.index(split))
    name = QUESTION_TYPES[kind][number % len(QUESTION_TYPES[kind])]
    clip = next(stories_from(split, seed, number, objects))
    return clip, pick(rng, [question for question in questions_about(clip, kind) if question.type == name])


def evaluation_rows(
    source: DataSource, kind: str, split: str, seed: int, count: int
) -> tuple[list[Rows], list[StoryQuestion]]:
    """Return one question per story, in rows per number of frames, and all questions in the order of the rows.

    count  number of questions; at least one of every type is asked for every number of frames
    """
    counts = FRAME_COUNTS[kind]
    per_count = max(count // len(counts), len(QUESTION_TYPES[kind]))
    sets, questions = [], []
    for place, frames in enumerate(counts):
        numbers = range(per_count * place, per_count * (place + 1))
        pairs = [question_of_number(split, seed, number, kind, source.objects) for number in numbers]
        token_ids, loss_mask, _ = collate([source.encode([question], frames) for _, question in pairs])
        sets.append(Rows(source.features([clip for clip, _ in pairs], frames), token_ids, loss_mask))
        questions += [question for _, question in pairs]
    return sets, questions
