"""Captioned pictures of the toy world: as tensors for the lesson's own run, or as a folder like anybody's.

python -m apps.captioner.toy FOLDER [--pairs 16] [--size 96]
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image

from apps.captioner.data import JSON, Pictures
from data.toybox.heldout import scene_at
from data.toybox.image import render_images
from data.toybox.language import caption
from data.toybox.scene import Scene
from shared.atomic import disk_errors
from shared.cli import command_line

LEVEL = "colours"


def toy_pictures(
    split: str, seed: int, count: int, *, size: int = 32, objects: tuple[int, int] = (1, 2)
) -> tuple[Pictures, list[Scene]]:
    """The first scenes of a split, drawn and captioned: “a red circle and a blue star”. In "test" each has a held-out combination."""
    scenes = [scene_at(split, seed, number, objects) for number in range(count)]
    pixels = torch.from_numpy(render_images(scenes, size)).permute(0, 3, 1, 2).contiguous()
    return Pictures(pixels, [(caption(scene, LEVEL),) for scene in scenes]), scenes


def write_folder(folder: Path, *, pairs: int = 16, size: int = 96, objects: tuple[int, int] = (1, 2)) -> None:
    """Write so many pictures of the training split, and captions.json. Raises CourseError when the disk refuses."""
    drawn, _ = toy_pictures("train", 0, pairs, size=size, objects=objects)
    names = [f"scene-{number:05}.png" for number in range(pairs)]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in zip(names, drawn.pixels, strict=True):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
        said = {name: list(captions) for name, captions in zip(names, drawn.captions, strict=True)}
        (folder / JSON).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Write a folder of captioned pictures of the toy world.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    asked = parser.parse_args()
    write_folder(asked.folder, pairs=asked.pairs, size=asked.size)
    print(f"{asked.pairs} pictures and {JSON} in {asked.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
