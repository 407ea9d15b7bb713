"""What the model learns from and is asked: pictures of the toy world, described, or talked about in questions and answers.

Lesson 0's language model has read interviews: a scene told in full, then questions, a line each. Here a picture stands where the
telling stood.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.toybox.documents import DESCRIBE_PROMPT
from data.toybox.heldout import scene_at
from data.toybox.language import caption
from data.toybox.questions import ANSWERS, QUESTION_TYPES, make_question, question_at
from data.toybox.scene import Scene, stream
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_05_llava.model import Llava, encode_interview
from shared.finetuning import collate
from shared.tokenizers import Tokenizer

IN_FULL, IN_SHORT = "places", "colours"
PURPOSE = 220  # of this lesson's own random numbers
DESCRIBED = 12
AGAIN = ("existence",) * 4
Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class World:
    """What is shown and asked: scenes of as few and as many `things`, and which kinds of questions about them.

    Raises ValueError for kinds that need more things than there are.
    """

    objects: tuple[int, int]
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        if lonely := [kind for kind in self.kinds if FEWEST.get(kind, 1) > self.objects[1]]:
            raise ValueError(f"with at most {self.objects[1]} things nothing can be asked of kind {', '.join(lonely)}")


FEWEST = {"nearest": 2, "relation": 2, "same": 2, "larger": 2, "count": 3, "more": 3}
"""How many things a kind of question needs, where it needs more than one, if each of its answers is to be the right one."""


def world_of(objects: Sequence[int]) -> World:
    """Scenes of so many things, and all kinds of questions that these allow."""
    fewest, most = objects
    return World((fewest, most), tuple(kind for kind in QUESTION_TYPES if FEWEST.get(kind, 1) <= most))


@dataclass(frozen=True)
class Conversations:
    """To be loss_mask from: row i of each belongs to picture i.

    features  what the eye makes of the pictures; nothing at all, [pictures, 0, width], where nobody looks
    answers   which tokens are the answers'
    """

    features: Float[Tensor, "pictures patches width"]
    tokens: Int[Tensor, "pictures text"]
    answers: Bool[Tensor, "pictures text"]
    segments: Int[Tensor, "pictures text"]


@dataclass(frozen=True)
class Asked:
    """To be answered: a question about each picture, its kind and its right answer."""

    features: Float[Tensor, "pictures patches width"]
    prompts: Sequence[Int[Tensor, "_"]]
    questions: Sequence[str]
    kinds: Sequence[str]
    answers: Sequence[str]
    scenes: Sequence[Scene]


# ── To be loss_mask from ────────────────────────────────────────────────────────────────────────────────────────────────


def described(
    model: Llava, tokenizer: Tokenizer, seed: int, count: int, world: World, *, image: bool, device: str
) -> Conversations:
    """What the first stage learns from: each scene told in full, unasked, or in short, when asked what there is."""
    scenes = [scene_at("train", seed, number, world.objects) for number in range(count)]
    said = list(map(description, scenes, range(count)))
    return _conversations(model, tokenizer, scenes, said, image=image, device=device)


def description(scene: Scene, number: int) -> Turns:
    """In full for even numbers, in short for odd ones."""
    return [(DESCRIBE_PROMPT, caption(scene, IN_SHORT)) if number % 2 else ("", f"{caption(scene, IN_FULL)}.")]


def interviewed(
    model: Llava, tokenizer: Tokenizer, seed: int, count: int, turns: int, world: World, *, image: bool, device: str,
) -> Conversations:  # fmt: skip
    """What the second stage learns from: scenes, each with a few questions; one in `DESCRIBED` is described.

    (A picture takes as many tokens as several questions, so it is asked several. But what one answer has told the next need
    not look for: so they are few, and of different kinds.)
    """
    scenes = [scene_at("train", seed + 1, number, world.objects) for number in range(count)]
    said = [
        description(scene, number // DESCRIBED)
        if number % DESCRIBED == 0
        else questions_about(scene, scenes[number - 1], turns, world, seed, number)
        for number, scene in enumerate(scenes)
    ]
    return _conversations(model, tokenizer, scenes, said, image=image, device=device)


def questions_about(scene: Scene, other: Scene, count: int, world: World, seed: int, number: int) -> Turns:
    """Questions with their answers, all kinds in their turn.

    Of a kind's answers one is drawn that is right for some question here, then such a question. Whether a thing is there is
    asked five times as often as the rest: yes or no tells little, hangs on all that is said of the thing, and is loss_mask last.
    `other` is a scene of the same split, to ask for what is not there.
    """
    rng, said, left = stream(seed, number, PURPOSE), [], []
    while len(said) < count:
        left = left or [*world.kinds, *AGAIN]
        kind = left.pop(int(rng.random() * len(left)))
        for answer in sorted(ANSWERS[kind], key=lambda _: rng.random()):
            question = make_question(scene, kind, answer, rng, other.objects)
            if question:
                said.append((question.text, question.answer))
                break
    return said


def _conversations(
    model: Llava, tokenizer: Tokenizer, scenes: Sequence[Scene], said: Sequence[Turns], *, image: bool, device: str
) -> Conversations:
    features = seen(model, scenes, image=image, device=device)
    places = [features.shape[1]]
    rows = [encode_interview(tokenizer, turns, image_token_counts=places) for turns in said]
    return Conversations(features, *collate(rows))


@torch.no_grad()
def seen(model: Llava, scenes: Sequence[Scene], *, image: bool, device: str) -> Float[Tensor, "pictures patches width"]:
    """What the eye makes of each scene, looked at once, for it never learns; nothing without an image."""
    if not image:
        return torch.zeros(len(scenes), 0, model.vision_encoder.config.width * len(model.feature_layers))
    some = render_tensors(scenes).split(256)
    return torch.cat([model.image_features(normalize_pixels(pixels.to(device))).cpu() for pixels in some])


# ── To be answered ────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(
    model: Llava, tokenizer: Tokenizer, split: str, seed: int, count: int, world: World, *, image: bool,
    device: str,
) -> Asked:  # fmt: skip
    """Questions of all kinds in equal parts, each answer as often as the next, about new scenes of a split."""
    drawn = [asked_at(split, seed, number, world) for number in range(count)]
    scenes, questions = [scene for scene, _ in drawn], [question for _, question in drawn]
    features = seen(model, scenes, image=image, device=device)
    texts = [question.text for question in questions]
    return Asked(
        features, _prompts(tokenizer, texts, features), texts, [question.type for question in questions],
        [question.answer for question in questions], scenes,
    )  # fmt: skip


def asked_at(split: str, seed: int, number: int, world: World):
    """The scene and the question of a number: kinds in turn."""
    return question_at(split, seed, number, world.kinds[number % len(world.kinds)], world.objects)


def to_be_described(
    model: Llava, tokenizer: Tokenizer, split: str, seed: int, count: int, world: World, *, image: bool,
    device: str,
) -> Asked:  # fmt: skip
    """New scenes of a split, to be told in full; as in the first stage, nothing is asked."""
    scenes = [scene_at(split, seed, number, world.objects) for number in range(count)]
    features = seen(model, scenes, image=image, device=device)
    said = [description(scene, 0) for scene in scenes]
    texts, answers = [turns[0][0] for turns in said], [turns[0][1] for turns in said]
    return Asked(features, _prompts(tokenizer, texts, features), texts, ["description"] * count, answers, scenes)


def _prompts(tokenizer: Tokenizer, questions: Sequence[str], features: Tensor) -> list[Int[Tensor, "_"]]:
    places = [features.shape[1]]
    rows = [
        encode_interview(tokenizer, [(question, "")], image_token_counts=places).token_ids for question in questions
    ]
    return [torch.tensor(row) for row in rows]
