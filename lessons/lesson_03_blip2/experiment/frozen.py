"""The two frozen ends of the bridge: lesson 2's eye and lesson 0's language model, as their lessons have left them."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_02_clip.experiment.pairs import standardize
from lessons.lesson_02_clip.model import CLIP, VisionTower
from shared.course.checkpoint import PLACE, PROVENANCE
from shared.errors import CourseError
from shared.tokenizers import Tokenizer, load_tokenizer


def checkpoint_folder(name: str, lesson: int) -> Path:
    """Where an earlier lesson's checkpoint lies. Raises CourseError when it has not been made."""
    folder = PLACE / name
    if not (folder / PROVENANCE).exists():
        raise CourseError(
            f"{folder} does not exist; lesson {lesson} makes it (python -m shared.course.checkpoint {lesson})"
        )
    return folder


def load_eye() -> VisionTower:
    """The image tower of lesson 2's CLIP, frozen. Raises CourseError when that has not been trained."""
    return CLIP.from_pretrained(checkpoint_folder("lesson_02_clip", 2)).image_tower.eval().requires_grad_(False)


def load_language() -> tuple[LanguageModel, Tokenizer]:
    """Lesson 0's decoder, frozen, and its tokenizer. Raises CourseError when that has not been trained."""
    folder = checkpoint_folder("lesson_00_decoder", 0)
    return LanguageModel.from_pretrained(folder).requires_grad_(False), load_tokenizer(folder / "tokenizer.json")


@torch.no_grad()
def features_of(
    eye: VisionTower, pixels: UInt8[Tensor, "images 3 size size"], device: str
) -> Float[Tensor, "images tokens width"]:
    """What the eye makes of pictures, each looked at once: all its tokens as they go into its last block, at one scale.

    The last block makes of them what CLIP compares, and there a purple triangle, never met, is no longer a triangle for
    sure; so it is left out (arXiv:2301.12597, section 3.4). The class token stays: much of a shape is known to it alone.
    """
    eye = eye.to(device)
    seen = [eye.hidden_states(standardize(some.to(device)))[-2] for some in pixels.split(256)]
    return nn.functional.layer_norm(torch.cat(seen), (eye.config.width,))


def digest(module: nn.Module) -> str:
    """One hash of every weight, to the bit."""
    whole = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        whole.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
