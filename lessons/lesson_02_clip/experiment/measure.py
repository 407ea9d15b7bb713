"""What the towers have learned, on scenes that they were not trained on."""

from collections.abc import Mapping
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.language import Description, phrase
from data.toybox.scene import PLACES, SIZES, TEXTURES
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.experiment.pairs import CLASSES, captions_of, prompt, tokens_of
from lessons.lesson_02_clip.model import CLIP, SigLIP
from lessons.lesson_02_clip.model.zero_shot import classify, ensemble, modality_gap, recall_at

# How the short prompt "a purple triangle" can be said at greater length, one way for each size, texture and place.
DETAILS = tuple((size, texture, place) for size in SIZES for texture in TEXTURES for place in PLACES)
SCENES = 512


class Exam(NamedTuple):
    """Held-out scenes of a kind, ready for the towers.

    classes  [scenes, things] the number in `CLASSES` of each thing, −1 where a scene has fewer
    texts    the distinct captions that tell everything, and `own`: which of them is each scene's
    """

    pixels: Float[Tensor, "scenes 3 size size"]
    classes: Int[Tensor, "scenes things"]
    texts: Int[Tensor, "captions tokens"]
    own: Int[Tensor, "scenes"]


@lru_cache(8)
def exam(split: str, objects: tuple[int, int] = (1, 1), count: int = SCENES) -> Exam:
    """Scenes of the "test" split hold a combination of colour and shape that no training scene has."""
    scenes = sample_scenes(split, TEST_SEED, count, objects)
    classes = torch.full((count, objects[1]), -1)
    for row, scene in enumerate(scenes):
        for column, scene_object in enumerate(scene.objects):
            classes[row, column] = CLASSES.index((scene_object.colour, scene_object.shape))
    # Without openings: "a picture of", which says nothing, would make two captions of one.
    captions = [
        text.removeprefix("a picture of ").removeprefix("here we see ") for text in captions_of(scenes, "places")
    ]
    distinct = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    own = torch.tensor([distinct[text] for text in captions])
    return Exam(normalize_pixels(render_tensors(scenes)), classes, tokens_of(list(distinct)), own)


@lru_cache(1)
def prompts() -> Int[Tensor, "classes tokens"]:
    """ "a red circle" and its like, one for each of the 64 classes."""
    return tokens_of([prompt(*pair) for pair in CLASSES])


@lru_cache(1)
def detailed_prompts() -> Int[Tensor, "prompts tokens"]:
    """Each class said in each of `DETAILS`' ways, class by class."""
    return tokens_of(
        [
            phrase(Description(size, texture, colour, shape, place))
            for colour, shape in CLASSES
            for size, texture, place in DETAILS
        ]
    )


@torch.no_grad()
def encoded(encode, inputs: Tensor, device: torch.device) -> Float[Tensor, "rows embedding"]:
    """Vectors of many rows, a part at a time."""
    return torch.cat([encode(part.to(device)).cpu() for part in inputs.split(512)])


def evaluate(model: CLIP | SigLIP) -> dict[str, float]:
    """What a learning curve shows: zero-shot accuracy on held-out combinations, of half of the scenes."""
    asked = exam("test", count=SCENES // 2)
    return {"zero_shot": named_rightly(images_of(model, asked), classes_of(model), asked)}


def images_of(model: CLIP | SigLIP, asked: Exam) -> Float[Tensor, "scenes embedding"]:
    """The scenes' vectors."""
    return encoded(model.encode_images, asked.pixels, model.log_scale.device)


def classes_of(model: CLIP | SigLIP) -> Float[Tensor, "classes embedding"]:
    """A classifier of the 64 classes, written in short prompts."""
    return encoded(model.encode_texts, prompts(), model.log_scale.device)


def named_rightly(
    images: Float[Tensor, "scenes embedding"], classes: Float[Tensor, "classes embedding"], asked: Exam
) -> float:
    """The share of scenes whose nearest class, of 64, is that of a thing in the scene."""
    named = classify(images, classes)
    return (asked.classes == named[:, None]).any(dim=1).float().mean().item()


def retrieval(
    images: Float[Tensor, "scenes embedding"], texts: Float[Tensor, "captions embedding"], asked: Exam
) -> dict[str, float]:
    """Recall of a scene's own caption among all distinct ones, and of a caption's scene among as many scenes."""
    # Each caption asks for the first scene that it describes; others that it describes too step aside.
    first = torch.full((len(texts),), len(images)).scatter_reduce(0, asked.own, torch.arange(len(images)), "amin")
    by_text = texts @ images[first].T
    return {
        "image_to_text": recall_at(1, images @ texts.T, asked.own).item(),
        "text_to_image": recall_at(1, by_text, torch.arange(len(texts))).item(),
        "chance": 1 / len(texts),
    }


def apart(model: CLIP | SigLIP) -> float:
    """The modality gap on held-out scenes."""
    model.eval()
    asked = exam("test")
    return modality_gap(images_of(model, asked), encoded(model.encode_texts, asked.texts, model.log_scale.device))


def measure(model: CLIP | SigLIP) -> Mapping[str, float]:
    """Everything that the lesson claims of a pair of towers, as numbers."""
    model.eval()
    held_out, seen, several = exam("test"), exam("validation"), exam("test", (2, 3))
    classes, device = classes_of(model), model.log_scale.device
    details = encoded(model.encode_texts, detailed_prompts(), device).unflatten(0, (len(CLASSES), len(DETAILS)))
    images, texts = images_of(model, held_out), encoded(model.encode_texts, held_out.texts, device)
    of_several = images_of(model, several), encoded(model.encode_texts, several.texts, device)
    return {
        "zero_shot": named_rightly(images, classes, held_out),
        "zero_shot_seen": named_rightly(images_of(model, seen), classes, seen),
        "zero_shot_several": named_rightly(of_several[0], classes, several),
        "things_share": (several.classes >= 0).sum(dim=1).float().mean().item() / len(CLASSES),
        "one_detailed_prompt": fmean(named_rightly(images, details[:, way], held_out) for way in range(len(DETAILS))),
        "ensemble": named_rightly(images, ensemble(details), held_out),
        "gap": modality_gap(images, texts),
        "temperature": 1 / model.logit_scale.item(),
        **retrieval(images, texts, held_out),
        **{f"{name}_several": value for name, value in retrieval(*of_several, several).items()},
    }
