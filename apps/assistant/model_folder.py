"""The folder of an assistant: a model in the layout of a published LLaVA, and what a conversation needs besides.

config.json, model.safetensors   the model           preprocessor_config.json   image preprocessing
tokenizer.json                   the tokenizer       assistant.json             context length and caption prompt
"""

import json
from dataclasses import dataclass
from pathlib import Path

from apps.assistant.embedding_llava import MODEL_TYPE, EmbeddingLlava
from apps.assistant.records import DESCRIBE
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava
from shared import pretrained, typed_json
from shared.atomic import write_atomically
from shared.course.checkpoint import PROVENANCE
from shared.errors import CourseError
from shared.tokenizers import ChatTemplate, Tokenizer

SETTINGS_FILE = "assistant.json"
PREPROCESSING_FILE = "preprocessor_config.json"
MODEL_CLASSES = {"llava": Llava, MODEL_TYPE: EmbeddingLlava}
DEFAULT_CONTEXT = 2048
"""Context length of a folder that states none."""
CHATML = {"begin": None, "turn": "<|im_start|>", "end": "<|im_end|>"}


def load_model(folder: Path | str) -> Llava:
    """Load the model of a folder, in evaluation mode. Raises CourseError when it holds another type of model."""
    model_type = pretrained.read_config(folder).get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_CLASSES:
        raise CourseError(
            f"{folder} holds a model of type {model_type!r}; an assistant is one of {', '.join(MODEL_CLASSES)}"
        )
    return MODEL_CLASSES[model_type].from_pretrained(folder)


@dataclass(frozen=True)
class GenerationSettings:
    """Hold what an assistant's folder states besides its weights.

    context         most tokens of a prompt and its answer together
    caption_prompt  the user turn that requested captions in training
    training_data   names of the files that it was trained on, without their folders: clients of the service read them
    """

    context: int
    caption_prompt: str = DESCRIBE
    training_data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.context < 2:
            raise ValueError(f"context is {self.context}; expected at least 2, for a question and an answer")


def read_generation_settings(folder: Path | str) -> GenerationSettings:
    """Read the settings of a folder; without the file, the context length of its language model's config.

    Raises CourseError when the file is not what `write_generation_settings` writes.
    """
    file = Path(folder) / SETTINGS_FILE
    if not file.exists():
        language_config = pretrained.read_config(folder).get("text_config") or {}
        return GenerationSettings(language_config.get("max_position_embeddings") or DEFAULT_CONTEXT)
    try:
        return typed_json.parse(GenerationSettings, file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CourseError(f"{file} is not a valid settings file: {error}") from error


def write_generation_settings(folder: Path, settings: GenerationSettings) -> None:
    """Write the file that `read_generation_settings` reads."""
    write_atomically(folder / SETTINGS_FILE, typed_json.to_json(settings).encode())


def read_preprocessing(folder: Path, size: int) -> ImagePreprocessing:
    """Read the image preprocessing of a folder; the course's own checkpoints without the file use the toy world's.

    Raises CourseError when the images would not have the vision encoder's `size`.
    """
    if not (folder / PREPROCESSING_FILE).exists() and (folder / PROVENANCE).exists():
        return toy_preprocessing(size)
    preprocessing = ImagePreprocessing.from_pretrained(folder)
    if preprocessing.size != size:
        raise CourseError(
            f"the image preprocessing in {folder} makes images of {preprocessing.size} pixels, "
            f"but the vision encoder takes {size}"
        )
    return preprocessing


def toy_preprocessing(size: int) -> ImagePreprocessing:
    """Return lesson 2's normalization of the toy world, byte / 64 − 3.25, as mean and standard deviation."""
    return ImagePreprocessing(size, mean=(3.25 * 64 / 255,) * 3, std=(64 / 255,) * 3)


def write_preprocessing(folder: Path, preprocessing: ImagePreprocessing) -> None:
    """Write what `ImagePreprocessing.from_pretrained` and the published class that it names read."""
    resized = preprocessing.resized or preprocessing.size
    config = {
        "image_processor_type": f"{'Llava' if preprocessing.pad else 'CLIP'}ImageProcessor",
        "do_pad": preprocessing.pad,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": resized} if preprocessing.crop else {"height": resized, "width": resized},
        "do_center_crop": preprocessing.crop or resized != preprocessing.size,
        "crop_size": {"height": preprocessing.size, "width": preprocessing.size},
        "resample": int(preprocessing.resample),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
    write_atomically(folder / PREPROCESSING_FILE, (json.dumps(config, indent=2) + "\n").encode())


def chat_template(tokenizer: Tokenizer) -> ChatTemplate:
    """Return the chat template that a tokenizer has the special tokens of: the course's own, or Qwen2's ChatML.

    Raises CourseError when it has the special tokens of neither.
    """
    for tokens in ({}, CHATML):
        try:
            return ChatTemplate(tokenizer, **tokens)
        except ValueError:
            continue
    raise CourseError(
        "the tokenizer needs <image>, and <|turn|> and <|end|> or <|im_start|> and <|im_end|> to mark turns; "
        f"its special tokens are {', '.join(tokenizer.special_tokens) or 'none'}"
    )
