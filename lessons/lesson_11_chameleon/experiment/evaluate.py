"""Measure a decoder on held-out scenes: its images by the independent judge, its captions and answers exactly."""

from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from data.toybox.heldout import sample_scenes
from data.toybox.language import is_true
from data.toybox.scene import Scene
from lessons.lesson_11_chameleon.experiment.data import (
    OBJECTS,
    SETTING,
    TASKS,
    full_caption,
    held_out_documents,
    held_out_questions,
    scene_images,
)
from lessons.lesson_11_chameleon.model import mixed_modal_loss
from lessons.lesson_11_chameleon.model.toy_chameleon import ToyChameleon
from shared.judge import load_judge, score_distance, score_images

BATCH_SIZE = 50
TEMPERATURE, TOP_P = 1.0, 0.9
"""How codes are sampled: defaults, not chosen on any scenes."""
NEXT_SEED = 1
"""Added to the seed of the scenes for the reference scenes of the Fréchet distance."""


class Drawings(NamedTuple):
    """Scenes, their captions, the images drawn from these, and the judge's scores."""

    scenes: list[Scene]
    captions: list[str]
    images: Float[Tensor, "images 3 size size"]
    scores: dict[str, float]


def draw_scenes(
    model: ToyChameleon, scenes: list[Scene], seed: int, temperature: float = TEMPERATURE, top_p: float | None = TOP_P
) -> Float[Tensor, "images 3 size size"]:
    """Draw one image from the caption of each scene."""
    generator = torch.Generator().manual_seed(seed)
    return model.draw(
        [full_caption(scene) for scene in scenes], temperature=temperature, top_p=top_p, generator=generator
    )


def measure_drawings(
    model: ToyChameleon,
    split: str,
    seed: int,
    count: int,
    *,
    temperature: float = TEMPERATURE,
    top_p: float | None = TOP_P,
) -> Drawings:
    """Draw held-out captions, and score the images by the judge.

    draw_…      accuracy of the drawn images: place, shape, color, size, texture, object, count, scene, caption
    ceiling_…   the same of reconstructions: the best that a perfect decoder can get with this image tokenizer
    real_…      the same of real renders: the best that a perfect image tokenizer can get
    distance    Fréchet distance of the judge's features from those of other real renders; `ceiling_distance` and
                `real_distance` are those of reconstructions and of real renders
    """
    scenes = sample_scenes(split, seed, count, OBJECTS)
    reference = sample_scenes(split, seed + NEXT_SEED, count, OBJECTS)
    captions = [full_caption(scene) for scene in scenes]
    images = draw_scenes(model, scenes, seed, temperature, top_p)
    judge, scores = load_judge(), {}
    reconstructions = reconstruct(model, scenes)
    for name, variant in (("draw", images), ("ceiling", reconstructions)):
        for attribute, score in score_images(judge, variant, scenes, captions=captions).items():
            scores |= {f"{name}_{attribute}": score.generated, f"real_{attribute}": score.real}
    generated = score_distance(judge, images, scenes, reference)
    scores |= {"distance": generated.generated, "real_distance": generated.real}
    scores["ceiling_distance"] = score_distance(judge, reconstructions, scenes, reference).generated
    return Drawings(scenes, captions, images, scores)


@torch.no_grad()
def reconstruct(model: ToyChameleon, scenes: list[Scene]) -> Float[Tensor, "images 3 size size"]:
    """Return the renders of scenes, encoded and decoded."""
    images = scene_images(scenes, model.image_tokenizer.config.image_size)
    return model.image_tokenizer.decode(model.image_tokenizer.encode(images))


def measure_texts(model: ToyChameleon, split: str, seed: int, count: int) -> dict[str, float]:
    """Return accuracies of answers and captions about real renders.

    answers, answers_…   fraction of questions answered exactly: mean over the question types, and per type
    captions             fraction of captions that equal the scene's
    captions_true        fraction that are true of the scene, whatever they leave out
    """
    questions = held_out_questions(split, seed, count)
    size = model.image_tokenizer.config.image_size
    replies = model.write(scene_images(questions.scenes, size), questions.texts)
    correct = [reply == answer for reply, answer in zip(replies, questions.answers, strict=True)]
    by_type = {
        name: fmean(hit for hit, other in zip(correct, questions.types, strict=True) if other == name)
        for name in SETTING.question_types
    }
    scenes = sample_scenes(split, seed, count, OBJECTS)
    captions = model.write(scene_images(scenes, size))
    return {
        "answers": fmean(by_type.values()),
        **{f"answers_{name}": value for name, value in by_type.items()},
        "captions": fmean(own == full_caption(scene) for own, scene in zip(captions, scenes, strict=True)),
        "captions_true": fmean(is_true(own, scene) for own, scene in zip(captions, scenes, strict=True)),
    }


@torch.no_grad()
def measure_losses(model: ToyChameleon, split: str, seed: int, count: int) -> dict[str, float]:
    """Return the cross-entropy in nats per predicted token, per task: of codes, of captions, and of answers."""
    losses = {}
    for task in TASKS:
        documents = held_out_documents(model, task, split, seed, count)
        total, terms = 0.0, 0.0
        for rows in torch.arange(count).split(BATCH_SIZE):
            token_ids, segments, loss_mask = (part[rows] for part in documents)
            loss, _ = mixed_modal_loss(model.decoder(token_ids), token_ids, segments, loss_mask=loss_mask, z_weight=0.0)
            total, terms = total + float(loss.total), terms + float(loss.terms)
        losses[f"{task}_loss"] = total / terms
    return losses
