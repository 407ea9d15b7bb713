"""An assistant's folder: the model as a published LLaVA lies on the Hugging Face hub, and beside it all that one needs to talk to it.

config.json, model.safetensors   the model           preprocessor_config.json   how pictures become numbers
tokenizer.json                   how words do        assistant.json             how much it can read at once
"""

import json
from dataclasses import dataclass
from pathlib import Path

from apps.assistant import typed_json
from apps.assistant.embedding import KIND, EmbeddingLlava
from apps.assistant.records import DESCRIBE
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared import pretrained
from shared.atomic import write_atomically
from shared.course.checkpoint import PROVENANCE
from shared.errors import CourseError
from shared.tokenizers import ChatTemplate, Tokenizer

SETTINGS = "assistant.json"
PREPROCESSING = "preprocessor_config.json"
MODELS = {"llava": Llava, KIND: EmbeddingLlava}
CONTEXT = 2048  # of a folder that says nothing


def load_model(folder: Path | str) -> Llava:
    """The model of a folder, in evaluation mode. Raises CourseError when it holds another one."""
    kind = pretrained.read_config(folder).get("model_type")
    if kind not in MODELS:
        raise CourseError(f"{folder} holds a model of type {kind!r}; an assistant is one of {', '.join(MODELS)}")
    return MODELS[kind].from_pretrained(folder)


@dataclass(frozen=True)
class Habits:
    """What an assistant's folder says besides its weights.

    context         tokens that it can read and write together
    caption_prompt  what it was asked in training when a caption was wanted
    """

    context: int
    caption_prompt: str = DESCRIBE


def habits_of(folder: Path | str) -> Habits:
    """As the assistant's own file says; of a folder without one, what its language model's config says of its context.

    Raises CourseError when the file is not what `write_habits` writes.
    """
    file = Path(folder) / SETTINGS
    if not file.exists():
        language = pretrained.read_config(folder).get("text_config") or {}
        return Habits(language.get("max_position_embeddings") or CONTEXT)
    try:
        return typed_json.parse(Habits, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} is not what an assistant's folder says of itself: {error}") from error


def write_habits(folder: Path, habits: Habits) -> None:
    """Write what `habits_of` reads."""
    write_atomically(folder / SETTINGS, typed_json.written(habits).encode())


def preprocessing_of(folder: Path, size: int) -> ImagePreprocessing:
    """What a folder says of how its eye wants pictures; the course's own checkpoints see the toy world, and say nothing."""
    if not (folder / PREPROCESSING).exists() and (folder / PROVENANCE).exists():
        return toy_preprocessing(size)
    said = ImagePreprocessing.from_pretrained(folder)
    if said.size != size:
        raise CourseError(f"{folder / PREPROCESSING} makes pictures of {said.size} pixels, but the eye takes {size}")
    return said


def toy_preprocessing(size: int) -> ImagePreprocessing:
    """As lesson 2 standardizes its bytes, x / 64 − 3.25, in the words of published files."""
    return ImagePreprocessing(size, mean=(3.25 * 64 / 255,) * 3, deviation=(64 / 255,) * 3)


def write_preprocessing(folder: Path, preprocessing: ImagePreprocessing) -> None:
    """Write what `ImagePreprocessing.from_pretrained`, and other programs' `CLIPImageProcessor`, read."""
    side = {"height": preprocessing.size, "width": preprocessing.size}
    written = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessing.size} if preprocessing.crop else side,
        "do_center_crop": preprocessing.crop,
        "crop_size": side,
        "resample": int(preprocessing.resample),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.deviation),
    }
    write_atomically(folder / PREPROCESSING, (json.dumps(written, indent=2) + "\n").encode())


def template_of(tokenizer: Tokenizer) -> ChatTemplate:
    """How conversations are written for a tokenizer: the course's own way, or ChatML, which Qwen2 was taught.

    Raises CourseError when it has the special tokens of neither.
    """
    for form in ({}, {"begin": None, "turn": "<|im_start|>", "end": "<|im_end|>"}):
        try:
            return ChatTemplate(tokenizer, **form)
        except ValueError:
            continue
    raise CourseError(
        "the tokenizer has neither <|turn|> and <|end|> nor <|im_start|> and <|im_end|> beside <image>, so nothing says where a "
        f"turn begins; its special tokens are {', '.join(tokenizer.special_tokens) or 'none'}"
    )
