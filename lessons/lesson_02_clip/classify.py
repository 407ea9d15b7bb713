"""Classify a photograph with a published CLIP, zero-shot, among any list of names.

python -m lessons.lesson_02_clip.classify FOLDER PHOTO "a cat" "a dog" "a bowl of soup"

FOLDER is a download of one of OpenAI's models, such as openai/clip-vit-base-patch32, with config.json,
model.safetensors, vocab.json, merges.txt and preprocessor_config.json.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lessons.lesson_02_clip.model import CLIP
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from lessons.lesson_02_clip.model.zero_shot import TEMPLATES, class_vectors
from shared.cli import command_line
from shared.images import open_image


@torch.no_grad()
def classify_photo(
    folder: Path | str, photo: Path | str, names: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> dict[str, float]:
    """Return the probability of each name, in descending order; they sum to 1, even if no name fits.

    Raises CourseError when the folder holds no CLIP, or the photograph cannot be read.
    """
    model, tokenizer = CLIP.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    vector = model.encode_images(ImagePreprocessing.from_pretrained(folder)([open_image(photo)]))
    classes = class_vectors(model.encode_texts, tokenizer, names, templates)
    probabilities = model.logits(vector, classes)[0].softmax(dim=-1).tolist()
    return dict(sorted(zip(names, probabilities, strict=True), key=lambda entry: -entry[1]))


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of a published CLIP")
    parser.add_argument("photo", help="image file")
    parser.add_argument("names", nargs="+", help="names to choose from")
    options = parser.parse_args()
    for name, probability in classify_photo(options.folder, options.photo, options.names).items():
        print(f"{probability:7.1%}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
