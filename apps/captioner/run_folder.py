"""The folder of a captioner's run: its settings, its tokenizer, its checkpoint.

captioner.json            what must be the same to resume the run
tokenizer.json            trained on the captions
checkpoint.safetensors    weights, and the state of the training
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from apps.captioner.config import PRESETS, CaptionerConfig
from apps.captioner.data import CaptionedImages
from apps.captioner.model import Captioner
from apps.captioner.toy_world import clip_config
from shared import typed_json
from shared.atomic import write_atomically
from shared.devices import usable_device
from shared.errors import CourseError
from shared.tokenizers import Tokenizer, load_tokenizer, save_tokenizer
from shared.training import load_weights

RECORD, TOKENIZER = "captioner.json", "tokenizer.json"
CLIP = "clip"
"""In place of a preset: the small one with lesson 2's vision encoder."""


@dataclass(frozen=True)
class RunRecord:
    """Describe a run; resuming it requires an equal record.

    preset    a name in PRESETS, or CLIP
    held_out  fraction of held-out images
    captions  digest of all training captions, in order
    pixels    digest of all training images, in order
    blind     whether the images were replaced by gray ones
    """

    preset: str
    held_out: float
    seed: int
    captions: str
    blind: bool = False
    pixels: str = ""

    @property
    def config(self) -> CaptionerConfig:
        """The configuration that the preset names."""
        return clip_config() if self.preset == CLIP else PRESETS[self.preset]


def captions_digest(captions: Sequence[Sequence[str]]) -> str:
    """Return a hash that is equal for equal captions in equal order."""
    return hashlib.sha256(json.dumps([list(each) for each in captions]).encode()).hexdigest()


def pixels_digest(pixels: UInt8[Tensor, "images 3 size size"]) -> str:
    """Return a hash that is equal for equal images in equal order."""
    return hashlib.sha256(pixels.numpy()).hexdigest()


def begin_run(folder: Path, record: RunRecord, tokenizer: Tokenizer) -> None:
    """Write the record and the tokenizer of a new run. Raises CourseError when the disk refuses."""
    write_atomically(folder / RECORD, typed_json.to_json(record).encode())
    save_tokenizer(tokenizer, folder / TOKENIZER)


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run. Raises CourseError when the folder holds no run of a captioner."""
    try:
        record = typed_json.parse(RunRecord, (folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(
            f"{folder} holds no captioner ({error}); train one: python -m apps.captioner train IMAGES --run {folder}"
        ) from error
    if record.preset not in (*PRESETS, CLIP):
        raise CourseError(
            f"{folder / RECORD} names preset {record.preset!r}; expected one of {', '.join((*PRESETS, CLIP))}"
        )
    return record


def check_same_run(folder: Path, record: RunRecord) -> None:
    """Raise CourseError, which names the differences, when the run in `folder` cannot be resumed with `record`."""
    before, now = asdict(read_record(folder)), asdict(record)
    if differences := [f"{name} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name]]:
        raise CourseError(
            f"the run in {folder} is another one: {'; '.join(differences)}. Use equal settings, or leave out --resume"
        )


def check_same_images(images: Path, record: RunRecord, training: CaptionedImages) -> None:
    """Raise CourseError when a folder's training images are not those of the run, so that some may be held out now."""
    digests = captions_digest(training.captions), pixels_digest(training.pixels)
    if record.held_out and digests != (record.captions, record.pixels):
        raise CourseError(
            f"{images} is not the folder of the training, or has changed since: images of the training may be among "
            "the held-out ones. Train again, or restore the folder"
        )


def load_captioner(folder: Path | str, device: str = "cpu") -> tuple[Captioner, Tokenizer]:
    """Load a trained captioner and its tokenizer; the model is on `device`.

    Raises CourseError when the folder holds none, or is damaged, and when this machine has no such device.
    """
    folder, target = Path(folder), usable_device(device)
    model = Captioner(read_record(folder).config)
    load_weights(model, folder)
    return model.eval().to(target), load_tokenizer(folder / TOKENIZER)
