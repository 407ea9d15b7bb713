"""Score a captioner on the held-out images of a folder, or on new scenes of the toy world."""

import json
from dataclasses import dataclass
from pathlib import Path

from apps.captioner.captions import generate_captions, score_captions_of
from apps.captioner.data import gray_images, read_folder
from apps.captioner.run_folder import check_same_images, load_captioner, read_record
from apps.captioner.toy_world import OBJECTS, fraction_true, toy_images
from data.toybox.heldout import TEST_SEED
from shared.errors import CourseError

RESULTS = Path(__file__).parent / "results.json"
SPLITS = {"seen combinations": "validation", "unseen combinations": "test"}


@dataclass(frozen=True)
class FolderScores:
    """Hold BLEU, CIDEr and ROUGE-L of a captioner on a folder.

    captioner  scores of the generated captions
    shuffled   scores of the same captions, each assigned to the next image: the part that owes nothing to the image
    examples   (generated caption, reference) of each image
    """

    captioner: dict[str, float]
    shuffled: dict[str, float]
    examples: list[tuple[str, str]]


def evaluate_on_folder(run: Path, images: Path, *, device: str = "cpu") -> FolderScores:
    """Caption the held-out images of a folder and score the captions.

    Raises CourseError when the run or the folder cannot be read, the folder has changed since the training, or fewer
    than two images are held out.
    """
    model, tokenizer = load_captioner(run, device)
    size = model.config.vision.image_sides[0]
    record = read_record(run)
    training, test = read_folder(images, size, held_out=record.held_out)
    check_same_images(images, record, training)
    if len(test.captions) < 2:
        raise CourseError(f"{images} has {len(test.captions)} held-out images; the scores need two or more")
    captions = generate_captions(model, tokenizer, test.pixels)
    shuffled = [*captions[1:], captions[0]]
    examples = [(caption, references[0]) for caption, references in zip(captions, test.captions, strict=True)]
    return FolderScores(score_captions_of(captions, test), score_captions_of(shuffled, test), examples)


def evaluate_on_toy_world(
    run: Path, *, scenes: int = 200, objects: tuple[int, int] = OBJECTS, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Caption new scenes; return the fraction of true captions and the scores, for seen and unseen combinations.

    A run of the blind baseline gets gray images here too. Raises CourseError when the run cannot be read.
    """
    model, tokenizer = load_captioner(run, device)
    blind, results = read_record(run).blind, {}
    for name, split in SPLITS.items():
        images, split_scenes = toy_images(split, TEST_SEED, scenes, objects=objects)
        pixels = gray_images(images.pixels) if blind else images.pixels
        captions = generate_captions(model, tokenizer, pixels)
        results[name] = {"true captions": fraction_true(captions, split_scenes)} | score_captions_of(captions, images)
    return results


def recorded_results() -> dict:
    """Return the recorded measurements on the toy world (results.json)."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))
