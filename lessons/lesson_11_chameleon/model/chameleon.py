"""Chameleon: one decoder over one sequence of text and image tokens (arXiv:2405.09818).

images → VQEncoder → codes → token ids ─┐
text   →                     token ids ─┴→ decoder → logits over text and codes
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_11_chameleon.model import config_mapping
from lessons.lesson_11_chameleon.model.block import chameleon_decoder
from lessons.lesson_11_chameleon.model.config import ChameleonConfig
from lessons.lesson_11_chameleon.model.generation import generate_mixed
from lessons.lesson_11_chameleon.model.vocabulary import splice_codes
from lessons.lesson_11_chameleon.model.vq_encoder import VQEncoder
from lessons.lesson_11_chameleon.model.weight_names import weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import KVCache, Sampling
from shared.transformer.sampling import Generators


class Chameleon(nn.Module):
    """Read and generate text and images as one sequence of tokens; a variant is a value of its config."""

    is_code: Tensor
    code_token_ids: Tensor

    def __init__(self, config: ChameleonConfig):
        super().__init__()
        self.config = config
        self.language_model = chameleon_decoder(config.language, config.design)
        self.image_tokenizer = VQEncoder(config.tokenizer)
        vocabulary = config.vocabulary
        self.register_buffer("is_code", vocabulary.is_code(), persistent=False)
        self.register_buffer("code_token_ids", torch.tensor(vocabulary.code_token_ids), persistent=False)

    # ── Inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def insert_images(
        self, token_ids: Int[Tensor, "batch tokens"], images: Float[Tensor, "images channels height width"]
    ) -> Int[Tensor, "batch tokens"]:
        """Replace the placeholders of images, in reading order over the batch, by the token ids of their codes.

        Raises ValueError for images of another size than the tokenizer's, when the number of placeholders does not fit
        the images, and for a vocabulary without a placeholder.
        """
        placeholder = self.config.vocabulary.placeholder
        if placeholder is None:
            raise ValueError("vocabulary_map has no <image>, so that a prompt cannot say where its images are")
        return splice_codes(token_ids, self.image_tokenizer(images), self.code_token_ids, placeholder)

    # ── The decoder ───────────────────────────────────────────────────────────────────────────────────────────────

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        images: Float[Tensor, "images channels height width"] | None = None,
        *,
        segments: Int[Tensor, "batch tokens"] | None = None,
        cache: KVCache | None = None,
        text_only: bool = True,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return next-token logits at every position.

        images     take the place of placeholders, as `insert_images` does
        segments   document of each token; −1 is padding
        cache      keys and values of earlier tokens
        text_only  set the logits of codes to the smallest finite number, as the published class always does; False to
                   train on images and to generate them

        Raises ValueError as `insert_images` does.
        """
        if images is not None:
            token_ids = self.insert_images(token_ids, images)
        logits = self.language_model(token_ids, segments=segments, cache=cache)
        return logits.masked_fill(self.is_code, torch.finfo(logits.dtype).min) if text_only else logits

    # ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────

    def generate(
        self,
        prompts: Sequence[Tensor],
        sampling: Sampling,
        *,
        text_only: bool = False,
        generator: Generators | None = None,
        use_cache: bool = True,
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt, a row of what `insert_images` returns; the rest is as in `generate_mixed`."""
        settings: dict[str, Any] = {"text_only": text_only, "generator": generator, "use_cache": use_cache}
        return generate_mixed(self.language_model, self.config.vocabulary, prompts, sampling, **settings)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Chameleon":
        """Load a published `ChameleonForConditionalGeneration` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_chameleon_config(folder)
        model = cls(config)
        load_weights(model, folder, weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        settings = config_mapping.write_chameleon_config(self.config)
        save_pretrained(folder, self, weight_names(self.config), settings)
