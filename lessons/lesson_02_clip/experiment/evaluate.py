"""Measurements on held-out scenes: zero-shot classification, retrieval, the modality gap, and the baseline."""

from collections.abc import Callable
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.heldout import sample_scenes
from data.toybox.scene import SHAPES
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.experiment.data import (
    CLASSES,
    CURVE_SEED,
    DETAILS,
    EVALUATION_SCENES,
    EvaluationSet,
    class_prompts,
    detailed_prompts,
    evaluation_set,
)
from lessons.lesson_02_clip.model import CLIP
from lessons.lesson_02_clip.model.zero_shot import classify, ensemble, modality_gap, recall_at
from shared.course.context import RunContext

# ── Trained models ────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def encode(
    encoder: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device
) -> Float[Tensor, "rows embedding"]:
    """Encode many rows, 512 at a time."""
    return torch.cat([encoder(part.to(device)).cpu() for part in inputs.split(512)])


def encode_scenes(model: CLIP, scenes: EvaluationSet) -> Float[Tensor, "scenes embedding"]:
    """Encode the images of an evaluation set."""
    return encode(model.encode_images, scenes.pixels, model.log_scale.device)


def encode_captions(model: CLIP, scenes: EvaluationSet) -> Float[Tensor, "captions embedding"]:
    """Encode the distinct captions of an evaluation set."""
    return encode(model.encode_texts, scenes.token_ids, model.log_scale.device)


def encode_classes(model: CLIP) -> Float[Tensor, "classes embedding"]:
    """Encode the short prompts of the 64 classes: the weights of a zero-shot classifier."""
    return encode(model.encode_texts, class_prompts(), model.log_scale.device)


def evaluate(model: CLIP) -> dict[str, float]:
    """Return everything that the lesson's claims read from a trained model."""
    model.eval()
    held_out, validation, several = (
        evaluation_set("test"),
        evaluation_set("validation"),
        evaluation_set("test", (2, 3)),
    )
    classes, device = encode_classes(model), model.log_scale.device
    details = encode(model.encode_texts, detailed_prompts(), device).unflatten(0, (len(CLASSES), len(DETAILS)))
    images, texts = encode_scenes(model, held_out), encode_captions(model, held_out)
    several_images, several_texts = encode_scenes(model, several), encode_captions(model, several)
    objects_per_scene = (several.classes >= 0).sum(dim=1).float().mean().item()
    return {
        "zero_shot": zero_shot_accuracy(images, classes, held_out),
        "zero_shot_seen": zero_shot_accuracy(encode_scenes(model, validation), classes, validation),
        "zero_shot_several": zero_shot_accuracy(several_images, classes, several),
        "zero_shot_several_chance": objects_per_scene / len(CLASSES),
        "one_detailed_prompt": fmean(
            zero_shot_accuracy(images, details[:, detail], held_out) for detail in range(len(DETAILS))
        ),
        "ensemble": zero_shot_accuracy(images, ensemble(details), held_out),
        "gap": modality_gap(images, texts),
        "temperature": 1 / model.logit_scale.item(),
        **retrieval(images, texts, held_out),
        **{f"{name}_several": value for name, value in retrieval(several_images, several_texts, several).items()},
    }


def evaluate_zero_shot(model: CLIP) -> dict[str, float]:
    """Return zero-shot accuracy on held-out combinations, for a learning curve: on fewer and other scenes."""
    scenes = evaluation_set("test", count=EVALUATION_SCENES // 2, seed=CURVE_SEED)
    return {"zero_shot": zero_shot_accuracy(encode_scenes(model, scenes), encode_classes(model), scenes)}


def zero_shot_accuracy(
    images: Float[Tensor, "scenes embedding"], classes: Float[Tensor, "classes embedding"], scenes: EvaluationSet
) -> float:
    """Return the fraction of scenes whose most similar class, of 64, is that of an object in the scene."""
    predictions = classify(images, classes)
    return (scenes.classes == predictions[:, None]).any(dim=1).float().mean().item()


def retrieval(
    images: Float[Tensor, "scenes embedding"], texts: Float[Tensor, "captions embedding"], scenes: EvaluationSet
) -> dict[str, float]:
    """Return recall at 1 of a scene's caption among all distinct ones, and of a caption's scene among as many."""
    # The match of a caption is the first scene with it; other scenes with the same caption are left out.
    first = torch.full((len(texts),), len(images)).scatter_reduce(
        0, scenes.caption_index, torch.arange(len(images)), "amin"
    )
    return {
        "image_to_text": recall_at(1, images @ texts.T, scenes.caption_index).item(),
        "text_to_image": recall_at(1, texts @ images[first].T, torch.arange(len(texts))).item(),
        "chance": 1 / len(texts),
    }


def measure_gap(model: CLIP) -> float:
    """Return the modality gap on held-out scenes."""
    model.eval()
    scenes = evaluation_set("test")
    return modality_gap(encode_scenes(model, scenes), encode_captions(model, scenes))


# ── Baseline ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def measure_baselines(context: RunContext, *, scenes: int, epochs: int) -> dict:
    """Measure two linear classifiers of pixels, trained with labels: one for the color and one for the shape.

    Combined, they can predict unseen combinations, as CLIP should. Unlike CLIP, they are given the attributes of each
    object as labels.
    """
    torch.manual_seed(context.seed)
    training = sample_scenes("train", context.seed, scenes, (1, 1))
    pixels = normalize_pixels(render_tensors(training)).flatten(1).to(context.device)
    labels = torch.tensor(
        [CLASSES.index((scene.objects[0].color, scene.objects[0].shape)) for scene in training],
        device=context.device,
    )
    test = evaluation_set("test")
    colors = softmax_regression(pixels, labels // len(SHAPES), epochs)
    shapes = softmax_regression(pixels, labels % len(SHAPES), epochs)
    test_pixels = test.pixels.flatten(1).to(context.device)
    with torch.no_grad():
        predictions = colors(test_pixels).argmax(dim=1) * len(SHAPES) + shapes(test_pixels).argmax(dim=1)
    accuracy = (predictions.cpu() == test.classes[:, 0]).float().mean().item()
    return {"zero_shot": accuracy, "chance": 1 / len(CLASSES)}


def softmax_regression(inputs: Tensor, labels: Tensor, epochs: int) -> nn.Linear:
    """Train one linear layer to distinguish 8 classes."""
    layer = nn.Linear(inputs.shape[1], 8).to(inputs.device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), device=inputs.device).split(128):
            loss = F.cross_entropy(layer(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer
