"""Two trained models, and between them a projector that knows nothing yet."""

from dataclasses import dataclass
from pathlib import Path

import torch

from apps.assistant.config import ModelChoice
from apps.assistant.embedding import EmbeddingLlava
from apps.assistant.files import preprocessing_of
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

STORED = {"int8": Int8Linear, "nf4": NF4Linear}
BLOCKS = ("blocks.*",)  # every matrix of the language model but those that read tokens in and name them on the way out


@dataclass(frozen=True)
class Joined:
    """A model, and what it takes to make its inputs from pictures and words."""

    model: Llava
    tokenizer: Tokenizer
    preprocessing: ImagePreprocessing


def join(choice: ModelChoice, seed: int = 0) -> Joined:
    """The models of a choice, joined. The projector and the adapters are drawn from `seed`.

    Raises CourseError when a folder is not there or holds another model, and when adapters fit no layer.
    """
    eye, words = find(choice.vision, "clip-vit-base-patch32"), find(choice.language, "Qwen2.5-0.5B-Instruct")
    clip, language = CLIP.from_pretrained(eye), LanguageModel.from_pretrained(words)
    tokenizer = with_image_token(load_tokenizer(words / "tokenizer.json"), language.config.vocab_size, words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = connect(clip, language, choice, tokenizer.special_tokens[IMAGE])
        adapt(model, choice)
    return Joined(model, tokenizer, preprocessing_of(eye, clip.config.image.image_size))


def connect(clip: CLIP, language: LanguageModel, choice: ModelChoice, image_token: int) -> Llava:
    """An eye and a language model with a new projector between them."""
    eye = clip.image_encoder
    if choice.connector == "patches":
        width = clip.config.image.width * len(choice.layers)
        projector = Projector(width, language.config.width, scales=choice.scales or (1.0,))
        model = Llava(
            eye,
            projector,
            language,
            image_token_id=image_token,
            feature_layers=choice.layers,
            keep_class_token=choice.class_token,
        )
    else:
        projector = Projector(clip.config.embedding, language.config.width)
        model = EmbeddingLlava(eye, clip.image_projection, projector, language, image_token_id=image_token)
    return model.eval()


def adapt(model: Llava, choice: ModelChoice) -> None:
    """Store the language model's matrices in few bits, and put adapters beside them, where the choice says so."""
    if choice.weights != "float32":
        quantize_linears(model.language_model, STORED[choice.weights], BLOCKS)
    if choice.adapters is not None:
        try:
            add_adapters(model.language_model, choice.adapters.config())
        except ValueError as error:
            raise CourseError(f"model.adapters: {error}") from error


def with_image_token(tokenizer: Tokenizer, rows: int, folder: Path) -> Tokenizer:
    """The tokenizer with a token for the image: its own, or the first number that no token has.

    Published embeddings have rows to spare: Qwen2.5-0.5B has 151,936 for 151,665 tokens. (What stands in that row is never
    read, for the image's vectors take its place.) Raises CourseError when there is none.
    """
    if IMAGE in tokenizer.special_tokens:
        return tokenizer
    number = tokenizer.vocab_size
    if number >= rows:
        raise CourseError(f"{folder}: all {rows:,} rows of the embedding have a token, and none is left for {IMAGE}")
    return Tokenizer(
        tokenizer.vocab,
        tokenizer.merges,
        special_tokens=tokenizer.special_tokens | {IMAGE: number},
        pattern=tokenizer.pattern,
        ignore_merges=tokenizer.ignore_merges,
        nfc=tokenizer.nfc,
    )


def find(name: str, example: str) -> Path:
    """A model's folder: from where one stands, from the repository's root, or in the data folder."""
    places = [Path(name), ROOT / name, data_folder() / name]
    for place in places:
        if place.is_dir():
            return place
    raise CourseError(
        f"no folder {name!r}, neither here, nor in {ROOT}, nor in {data_folder()}. Get the model once, for instance:\n"
        f"  hf download {name if name.count('/') == 1 else f'…/{example}'} --local-dir {data_folder() / name}"
    )
