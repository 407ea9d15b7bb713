"""InternVL3 and 3.5: a tile encoder and a language model, with V2PE (arXiv:2504.10479, arXiv:2508.18265).

tiles → InternViT → pixel unshuffle → projector → visual tokens ─┐
text → token embeddings ─────────────────────────────────────────┴→ blocks with V2PE angles → logits
"""

from functools import partial
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava.model import splice_images
from lessons.lesson_09_qwen_vl.model.qwen_vl import qwen3_block
from lessons.lesson_10_internvl.model import config_mapping
from lessons.lesson_10_internvl.model.config import InternVLConfig
from lessons.lesson_10_internvl.model.positions import token_steps, v2pe_positions
from lessons.lesson_10_internvl.model.prompt import Prompt
from lessons.lesson_10_internvl.model.tile_encoder import TileEncoder
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import KVCache, PromptedModel, Rotary


class InternVL(PromptedModel):
    """Answer questions about images; a variant is a value of its config."""

    def __init__(self, config: InternVLConfig):
        super().__init__()
        self.config = config
        self.tile_encoder = TileEncoder(config)
        block = partial(qwen3_block, config.language) if config.qk_norm else None
        self.language_model = LanguageModel(config.language, block)

    # ── Inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def prompt(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        visual_tokens: Float[Tensor, "visual_tokens width"] | None = None,
        image_steps: Float[Tensor, "images"] | None = None,
        segments: Int[Tensor, "batch tokens"] | None = None,
    ) -> Prompt:
        """Put visual tokens at the image positions, in reading order over the batch, and compute V2PE positions.

        visual_tokens  embeddings, as `tile_encoder` returns them; None without images
        image_steps    δ of each image, in reading order; None: 1, which is ordinary rotary encoding
        segments       −1 for padding, at the end of rows; all other tokens have 0

        Raises ValueError when image positions and visual tokens, or images and steps, do not fit each other.
        """
        real = torch.ones_like(token_ids, dtype=torch.bool) if segments is None else segments >= 0
        is_visual = (token_ids == self.config.image_token_id) & real
        text = self.embedding(torch.where(is_visual, 0, token_ids))
        images = text.new_zeros(0, text.shape[-1]) if visual_tokens is None else visual_tokens
        if image_steps is None:
            steps = torch.ones(token_ids.shape, device=token_ids.device)
        else:
            steps = token_steps(is_visual, image_steps.to(token_ids.device))
        return Prompt(splice_images(text, is_visual, images), v2pe_positions(steps), real.sum(dim=1))

    # ── The language model ────────────────────────────────────────────────────────────────────────────────────────

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        tiles: Float[Tensor, "tiles channels height width_px"] | None = None,
        image_steps: Float[Tensor, "images"] | None = None,
        segments: Int[Tensor, "batch tokens"] | None = None,
        full: Bool[Tensor, "tiles"] | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return next-token logits at every position.

        full  which tiles get all their visual tokens; None: the router decides, where there is one

        The other arguments and the errors are those of `prompt` and of `tile_encoder`.
        """
        visual_tokens = None if tiles is None else self.tile_encoder(tiles, full).embeddings
        prompt = self.prompt(token_ids, visual_tokens, image_steps, segments)
        return self.output(self.hidden_states(embeddings=prompt.embeddings, segments=segments, prompt=prompt))

    def hidden_states(
        self,
        *,
        embeddings: Float[Tensor, "batch tokens width"],
        prompt: Prompt,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the final hidden states of tokens at some places of the rows.

        positions  places of the tokens, counted from 0; None counts on from the cached tokens
        """
        positions, mask = self.places_and_mask(embeddings, positions, segments, cache)
        rotary = cast(Rotary, self.language_model.rotary)  # the config allows no other positions
        angles = rotary(prompt.positions_at(positions)[..., None])
        x = embeddings
        for layer, block in enumerate(self.language_model.blocks):
            x = block(x, mask=mask, angles=angles, cache=None if cache is None else cache[layer])
        return self.language_model.norm(x)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "InternVL":
        """Load a published `InternVLForConditionalGeneration` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_internvl_config(folder)
        model = cls(config)
        load_weights(model, folder, config_mapping.weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        settings = config_mapping.write_internvl_config(self.config)
        save_pretrained(folder, self, config_mapping.weight_names(self.config), settings)
