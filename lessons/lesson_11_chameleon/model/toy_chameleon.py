"""The course's own Chameleon: a small decoder over lesson 0's text tokens and the codes of toy-world images.

One vocabulary holds the text tokens of lesson 0's tokenizer, then the begin and end tokens of an image, then the codes:

    0 … 525 text | 526 begin | 527 end | 528 … 1,039 codes
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_11_chameleon.model.block import chameleon_decoder
from lessons.lesson_11_chameleon.model.config import BlockDesign
from lessons.lesson_11_chameleon.model.generation import generate_mixed
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer
from lessons.lesson_11_chameleon.model.vocabulary import ImageVocabulary, codes_of_token_ids
from shared.course.checkpoint import checkpoint_folder
from shared.errors import CourseError
from shared.tokenizers import Tokenizer, load_tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, IMAGE_TOKEN
from shared.tokenizers.tokenizer_json import save_tokenizer
from shared.transformer import DecoderConfig, Sampling

NAME = "lesson_11_chameleon"
SETTINGS, WEIGHTS, TEXT_TOKENIZER = "decoder.json", "decoder.safetensors", "tokenizer.json"
NEWLINE = "\n"
"""Ends a caption and an answer."""


def toy_vocabulary(tokenizer: Tokenizer, codebook_size: int, image_tokens: int) -> ImageVocabulary:
    """Return the vocabulary of text and images: text, begin, end, codes."""
    begin = tokenizer.vocab_size
    first = begin + 2
    return ImageVocabulary(
        tuple(range(first, first + codebook_size)),
        image_tokens,
        first + codebook_size,
        tokenizer.special_tokens[IMAGE_TOKEN],
        begin,
        begin + 1,
    )


def toy_config(vocab_size: int, **sizes: Any) -> DecoderConfig:
    """Return the settings of a decoder of width 128 with four blocks; `sizes` replaces values by name."""
    config = DecoderConfig(
        vocab_size, width=128, depth=4, heads=4, kv_heads=4, mlp_dim=344, rotary_base=300.0, tied=True
    )
    return replace(config, **sizes)


@dataclass(frozen=True)
class ToyChameleon:
    """Read and draw toy-world images with one decoder.

    decoder          predicts the next token, of text or of an image
    design           of its blocks
    tokenizer        text ↔ token ids
    image_tokenizer  images ↔ codes; it is frozen
    vocabulary       token ids of images
    """

    decoder: LanguageModel
    design: BlockDesign
    tokenizer: Tokenizer
    image_tokenizer: ImageTokenizer
    vocabulary: ImageVocabulary

    @classmethod
    def build(
        cls, tokenizer: Tokenizer, image_tokenizer: ImageTokenizer, design: BlockDesign, **sizes: Any
    ) -> "ToyChameleon":
        """Return an untrained model; `sizes` replaces settings of `toy_config` by name."""
        vocabulary = toy_vocabulary(tokenizer, image_tokenizer.codebook_size, image_tokenizer.config.side**2)
        decoder = chameleon_decoder(toy_config(vocabulary.vocab_size, **sizes), design)
        return cls(decoder, design, tokenizer, image_tokenizer.eval().requires_grad_(False), vocabulary)

    # ── Images as tokens ──────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def image_token_ids(self, images: Float[Tensor, "images 3 size size"]) -> Int[Tensor, "images tokens"]:
        """Return images as token ids, with the begin and the end token."""
        return self.vocabulary.image_token_ids(self.image_tokenizer.encode(images).flatten(1))

    @torch.no_grad()
    def images_of(self, token_ids: Int[Tensor, "images tokens"]) -> Float[Tensor, "images 3 size size"]:
        """Return the images of codes as token ids, without begin and end token."""
        lookup = torch.tensor(self.vocabulary.code_token_ids, device=token_ids.device)
        side = self.image_tokenizer.config.side
        codes = codes_of_token_ids(token_ids, lookup, self.vocabulary.vocab_size)
        return self.image_tokenizer.decode(codes.unflatten(1, (side, side)))

    # ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────

    def text(self, text: str, *, begin: bool = False) -> Int[Tensor, "tokens"]:
        """Return text as token ids, with the token that begins a document on request."""
        first = [self.tokenizer.special_tokens[BEGIN_TOKEN]] if begin else []
        return torch.tensor(first + self.tokenizer.encode(text), dtype=torch.long)

    def draw(
        self,
        captions: Sequence[str],
        *,
        temperature: float = 1.0,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "images 3 size size"]:
        """Draw one image per caption: 64 codes between the begin and the end token, by constrained decoding."""
        begin, end = self.vocabulary.markers()
        prompts = [
            torch.cat([self.text(f"{caption}{NEWLINE}", begin=True), torch.tensor([begin])]) for caption in captions
        ]
        sampling = Sampling(
            self.vocabulary.image_tokens + 1, temperature=temperature, top_p=top_p, stop_token_ids=(end,)
        )
        rows = generate_mixed(self.decoder, self.vocabulary, prompts, sampling, generator=generator)
        return self.images_of(torch.stack([row[: self.vocabulary.image_tokens] for row in rows]))

    def write(
        self, images: Float[Tensor, "images 3 size size"], questions: Sequence[str] | None = None, *, most: int = 24
    ) -> list[str]:
        """Write a caption for each image, or the answer to its question; greedy, at most `most` tokens."""
        start = self.text("", begin=True)
        encoded = self.image_token_ids(images)
        texts = [self.text(question) for question in questions or [""] * len(images)]
        prompts = [torch.cat([start, image, text]) for image, text in zip(encoded, texts, strict=True)]
        stop = self.tokenizer.encode(NEWLINE)
        sampling = Sampling(most, stop_token_ids=stop)
        rows = generate_mixed(self.decoder, self.vocabulary, prompts, sampling, text_only=True)
        return [self.tokenizer.decode(row[row < self.tokenizer.vocab_size].tolist()).strip() for row in rows]

    # ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def save(self, folder: Path) -> None:
        """Write the image tokenizer and the decoder in bfloat16, and the text tokenizer, into one folder."""
        self.image_tokenizer.to(torch.bfloat16).save_pretrained(folder)
        self.image_tokenizer.float()
        language, design = asdict(self.decoder.config), asdict(self.design)
        text = json.dumps({"language": language, "design": design}, indent=1)
        (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")
        weights = {name: tensor.to(torch.bfloat16) for name, tensor in self.decoder.named_parameters()}
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        save_tokenizer(self.tokenizer, folder / TEXT_TOKENIZER)

    @classmethod
    def load(cls, folder: Path) -> "ToyChameleon":
        """Load what `save` wrote, in float32 and evaluation mode. Raises CourseError for weights of another decoder."""
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        image_tokenizer = ImageTokenizer.from_pretrained(folder)
        tokenizer = load_tokenizer(folder / TEXT_TOKENIZER)
        sizes = {name: value for name, value in settings["language"].items() if name not in ("vocab_size", "windows")}
        model = cls.build(tokenizer, image_tokenizer, BlockDesign(**settings["design"]), **sizes)
        weights, parameters = load_file(folder / WEIGHTS), dict(model.decoder.named_parameters())
        shapes = {name: tensor.shape for name, tensor in weights.items()}
        if shapes != {name: parameter.shape for name, parameter in parameters.items()}:
            raise CourseError(f"{folder / WEIGHTS} does not fit {folder / SETTINGS}; make both with make checkpoint-11")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        model.decoder.eval()
        return model


def load_image_tokenizer() -> ImageTokenizer:
    """Load the shipped image tokenizer, frozen. Raises CourseError when its checkpoint is missing."""
    return ImageTokenizer.from_pretrained(checkpoint_folder(NAME)).requires_grad_(False)


def load_chameleon() -> ToyChameleon:
    """Load the shipped decoder and image tokenizer. Raises CourseError when the checkpoint is missing."""
    return ToyChameleon.load(checkpoint_folder(NAME))
