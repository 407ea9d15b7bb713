"""Emu3: one decoder over text, images and videos as one sequence of tokens (arXiv:2409.18869).

images, videos → VisionTokenizer → codes → token ids ─┐
text           →                          token ids ─┴→ decoder → logits over text and codes
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_11_chameleon.model.block import chameleon_decoder
from lessons.lesson_11_chameleon.model.config import BlockDesign
from lessons.lesson_12_emu3.model import config_mapping
from lessons.lesson_12_emu3.model.config import Emu3Config
from lessons.lesson_12_emu3.model.frames import FrameGrid, codes_of_tokens, line_token_ids
from lessons.lesson_12_emu3.model.generation import VisionSampling, generate_frames
from lessons.lesson_12_emu3.model.vision_tokenizer import VisionTokenizer
from lessons.lesson_12_emu3.model.weight_names import weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import KVCache, Sampling, generate
from shared.transformer.sampling import Generators


class Emu3(nn.Module):
    """Read and generate text, images and videos as one sequence of tokens."""

    def __init__(self, config: Emu3Config):
        super().__init__()
        self.config = config
        design = BlockDesign(
            qk_norm=False, attention_bias=config.attention_bias, mlp_bias=config.mlp_bias, dropout=config.dropout
        )
        self.language_model = chameleon_decoder(config.language, design)
        self.tokenizer = VisionTokenizer(config.tokenizer)

    # ── Inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def image_token_ids(
        self, images: Float[Tensor, "images channels height width"], sizes: Int[Tensor, "images 2"] | None = None
    ) -> Int[Tensor, "tokens"]:
        """Return the token ids of all images one after another: codes, with the end of each row.

        sizes  height and width of each image where some are padded

        Raises ValueError as `VisionTokenizer.encode_images` does.
        """
        vocabulary = self.config.vocabulary
        grids = self.tokenizer.encode_images(images, sizes)
        return torch.cat([line_token_ids(vocabulary.token_ids(grid), vocabulary.end_of_line) for grid in grids])

    def insert_images(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        images: Float[Tensor, "images channels height width"],
        sizes: Int[Tensor, "images 2"] | None = None,
    ) -> Int[Tensor, "batch tokens"]:
        """Replace the placeholders of images, in reading order over the batch, by the token ids of the images.

        Raises ValueError as `image_token_ids` does, when the number of placeholders does not fit the images, and for a
        vocabulary without a placeholder.
        """
        placeholder = self.config.vocabulary.placeholder
        if placeholder is None:
            raise ValueError("vocabulary_map has no <image>, so that a prompt cannot say where its images are")
        new_ids = self.image_token_ids(images, sizes)
        is_placeholder = token_ids == placeholder
        if int(is_placeholder.sum()) != len(new_ids):
            raise ValueError(
                f"the prompt has {int(is_placeholder.sum())} image placeholders, but {len(images)} images have "
                f"{len(new_ids)} tokens; write rows · (columns + 1) placeholders per image"
            )
        return token_ids.masked_scatter(is_placeholder, new_ids)

    # ── The decoder ───────────────────────────────────────────────────────────────────────────────────────────────

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        images: Float[Tensor, "images channels height width"] | None = None,
        sizes: Int[Tensor, "images 2"] | None = None,
        *,
        segments: Int[Tensor, "batch tokens"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return next-token logits at every position.

        images, sizes  take the place of placeholders, as in `insert_images`
        segments       document of each token; −1 is padding
        cache          keys and values of earlier tokens

        Raises ValueError as `insert_images` does.
        """
        if images is not None:
            token_ids = self.insert_images(token_ids, images, sizes)
        return self.language_model(token_ids, segments=segments, cache=cache)

    # ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────

    def generate(
        self, prompts: Sequence[Tensor], sampling: Sampling, *, generator: Generators | None = None
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt, a row of what `insert_images` returns, as `shared.transformer.generate` does."""
        return generate(self.language_model, prompts, sampling, generator=generator)

    def generate_frames(
        self,
        prompts: Sequence[Tensor],
        unconditional: Sequence[Tensor],
        grid: FrameGrid,
        sampling: VisionSampling,
        generator: Generators | None = None,
    ) -> Int[Tensor, "batch tokens"]:
        """Continue each prompt by an image or a video; arguments and errors are those of `generate_frames`."""
        vocabulary = self.config.vocabulary
        return generate_frames(self.language_model, vocabulary, prompts, unconditional, grid, sampling, generator)

    @torch.no_grad()
    def decode_frames(
        self, token_ids: Int[Tensor, "batch tokens"], grid: FrameGrid
    ) -> Float[Tensor, "batch frames channels height width"]:
        """Return the pixels of generated tokens; of a grid with one frame, the image.

        Raises ValueError for fewer tokens than the grid has, and for a token in the place of a code that is none.
        """
        vocabulary = self.config.vocabulary
        codes = vocabulary.codes(codes_of_tokens(token_ids, grid.frames, grid.rows, grid.columns))
        if grid.frames == 1:
            return self.tokenizer.decode_images(codes[:, 0])[:, None]
        return self.tokenizer.decode_videos(codes)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dropout: float = 0.0) -> "Emu3":
        """Load a published `Emu3ForConditionalGeneration` from its folder, in evaluation mode.

        dropout  of a training that follows, which is no part of the file

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = replace(config_mapping.read_emu3_config(folder), dropout=dropout)
        model = cls(config)
        load_weights(model, folder, weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        settings = config_mapping.write_emu3_config(self.config)
        save_pretrained(folder, self, weight_names(self.config), settings)
