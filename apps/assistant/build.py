"""Build an assistant's model from two trained ones: CLIP's vision encoder, a new projector, a language model."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from apps.assistant.config import ModelConfig
from apps.assistant.embedding_llava import EmbeddingLlava
from apps.assistant.model_folder import read_preprocessing
from apps.assistant.records import IMAGE
from data.datasets.download import data_folder
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_02_clip.model import CLIP
from lessons.lesson_02_clip.model.preprocessing import ImagePreprocessing
from lessons.lesson_05_llava.model import Llava, Projector
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.finetuning import Int8Linear, NF4Linear, add_adapters, quantize_linears
from shared.tokenizers import Tokenizer, load_tokenizer

QUANTIZED_LAYERS = {"int8": Int8Linear, "nf4": NF4Linear}
QUANTIZED_NAMES = ("blocks.*",)
"""All linear layers of the language model except the embedding and the output."""


@dataclass(frozen=True)
class ModelParts:
    """Hold a model, its tokenizer and its image preprocessing."""

    model: Llava
    tokenizer: Tokenizer
    preprocessing: ImagePreprocessing


def build_model(config: ModelConfig, seed: int = 0) -> ModelParts:
    """Load the two trained models and connect them; projector and adapters are initialized from `seed`.

    Raises CourseError when a folder is missing or holds another model, and when adapters match no layer.
    """
    clip_folder = find_model_folder(config.vision, "clip-vit-base-patch32")
    language_folder = find_model_folder(config.language, "Qwen2.5-0.5B-Instruct")
    clip, language_model = CLIP.from_pretrained(clip_folder), LanguageModel.from_pretrained(language_folder)
    tokenizer = load_tokenizer(language_folder / "tokenizer.json")
    tokenizer = with_image_token(tokenizer, language_model.config.vocab_size, language_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = connect(clip, language_model, config, tokenizer.special_tokens[IMAGE])
        prepare_language_model(model, config)
    return ModelParts(model, tokenizer, read_preprocessing(clip_folder, clip.config.image.image_size))


def connect(clip: CLIP, language_model: LanguageModel, config: ModelConfig, image_token_id: int) -> Llava:
    """Return a LLaVA of the two models with a new projector."""
    if config.connector == "embedding":
        projector = Projector(clip.config.embedding, language_model.config.width)
        model: Llava = EmbeddingLlava(
            clip.image_encoder, clip.image_projection, projector, language_model, image_token_id=image_token_id
        )
    else:
        states = clip.config.image.depth + 1
        if outside := [layer for layer in config.feature_layers if not -states <= layer < states]:
            raise CourseError(
                f"model.feature_layers: {outside[0]}; the {states - 1} blocks of the vision encoder have the "
                f"hidden states 0 to {states - 1}, or {-states} to -1 from the end"
            )
        width = clip.config.image.width * len(config.feature_layers)
        model = Llava(
            clip.image_encoder,
            Projector(width, language_model.config.width),
            language_model,
            image_token_id=image_token_id,
            feature_layers=config.feature_layers,
            keep_class_token=config.keep_class_token,
        )
    return model.eval()


def prepare_language_model(model: Llava, config: ModelConfig) -> None:
    """Quantize the language model and add adapters to it, as the config says."""
    if config.weights != "float32":
        quantize_linears(model.language_model, QUANTIZED_LAYERS[config.weights], QUANTIZED_NAMES)
    if config.adapters is not None:
        try:
            add_adapters(model.language_model, config.adapters.config())
        except ValueError as error:
            raise CourseError(f"model.adapters: {error}") from error


def with_image_token(tokenizer: Tokenizer, vocab_size: int, folder: Path) -> Tokenizer:
    """Return the tokenizer with an <image> token: its own, or a new one with the first unused token id.

    Published embeddings have unused rows: Qwen2.5-0.5B has 151,936 rows for 151,665 tokens. The row of <image> is never
    read, because image embeddings replace it. Raises CourseError when there is no unused row.
    """
    if IMAGE in tokenizer.special_tokens:
        return tokenizer
    token_id = tokenizer.added_tokens.get(IMAGE, tokenizer.vocab_size)
    if token_id >= vocab_size:
        raise CourseError(f"{folder}: all {vocab_size:,} rows of the embedding have a token; none is left for {IMAGE}")
    return tokenizer.with_special_token(IMAGE, token_id)


def find_model_folder(name: str, example: str) -> Path:
    """Search a model's folder in the working directory, the repository's root and the data folder.

    Raises CourseError with the command that downloads it.
    """
    for folder in (Path(name), ROOT / name, data_folder() / name):
        if os.path.isdir(folder):  # Path.is_dir raises for names that are too long
            return folder
    raise CourseError(
        f"no folder {name!r} here, in {ROOT} or in {data_folder()}. Download the model once, for example:\n"
        f"  hf download {name if name.count('/') == 1 else f'…/{example}'} --local-dir {data_folder() / name}"
    )
