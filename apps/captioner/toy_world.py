"""Captioned images of the toy world, and lesson 2's vision encoder for the small captioner."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from apps.captioner.config import SMALL, CaptionerConfig
from apps.captioner.data import JSON, CaptionedImages
from apps.captioner.model import Captioner
from data.toybox.heldout import sample_scenes
from data.toybox.language import caption, is_true
from data.toybox.scene import Scene
from data.toybox.tensors import IMAGE_SIZE, render_tensors
from lessons.lesson_02_clip.model.pretrained import load_vision_encoder
from shared.atomic import disk_errors

LEVEL = "colors"
"""The level of detail of the captions: “a red circle and a blue star”."""
OBJECTS = (1, 2)
"""Smallest and largest number of objects per scene."""


def toy_images(
    split: str, seed: int, count: int, *, size: int = IMAGE_SIZE, objects: tuple[int, int] = OBJECTS
) -> tuple[CaptionedImages, list[Scene]]:
    """Return the first scenes of a split with their images and captions.

    In the split "test" each scene has a held-out combination of color and shape.
    """
    scenes = sample_scenes(split, seed, count, objects)
    return CaptionedImages(render_tensors(scenes, size), [(caption(scene, LEVEL),) for scene in scenes]), scenes


def write_folder(folder: Path, *, count: int = 16, size: int = 96) -> None:
    """Write images of the training split, and captions.json. Raises CourseError when the disk refuses."""
    images, _ = toy_images("train", 0, count, size=size)
    names = [f"scene-{number:05}.png" for number in range(count)]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(names, images.pixels, strict=True):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
        captions = {name: list(each) for name, each in zip(names, images.captions, strict=True)}
        (folder / JSON).write_text(json.dumps(captions, indent=1) + "\n", encoding="utf-8")


def fraction_true(captions: Sequence[str], scenes: Sequence[Scene]) -> float:
    """Return the fraction of captions that name every object of their scene once, and no other."""
    return sum(is_true(text, scene) for text, scene in zip(captions, scenes, strict=True)) / len(scenes)


# ── Lesson 2's vision encoder ─────────────────────────────────────────────────────────────────────────────────────────


def clip_config() -> CaptionerConfig:
    """Return the small preset with the shipped CLIP's vision encoder, without its last block.

    The last block computes the pooled vector that CLIP compares and discards much of what a caption needs
    (arXiv:2301.12597, section 3.4). Raises CourseError when the checkpoint is missing.
    """
    vision = load_vision_encoder().config
    return replace(SMALL, vision=replace(vision, depth=vision.depth - 1))


def load_clip_weights(model: Captioner) -> None:
    """Copy the shipped CLIP's weights into the vision encoder and freeze it; the final norm stays as initialized."""
    last = f"blocks.{model.config.vision.depth}."
    weights = {
        name: tensor
        for name, tensor in load_vision_encoder().state_dict().items()
        if not name.startswith((last, "norm."))
    }
    missing = model.vision_encoder.load_state_dict(weights, strict=False).missing_keys
    assert missing == ["norm.weight", "norm.bias"], missing
    model.vision_encoder.requires_grad_(False)
