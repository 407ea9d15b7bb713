"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a vision encoder and a language model with M-RoPE.

images, videos → vision encoder → visual tokens ─┐
text → token embeddings ─────────────────────────┴→ blocks with M-RoPE angles (+ deep features) → logits
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava.model import splice_images
from lessons.lesson_09_qwen_vl.model import config_mapping
from lessons.lesson_09_qwen_vl.model.config import QwenVLConfig
from lessons.lesson_09_qwen_vl.model.deepstack import add_features, spread_over_text
from lessons.lesson_09_qwen_vl.model.patches import VisualInput
from lessons.lesson_09_qwen_vl.model.positions import IMAGE, TEXT, VIDEO, TokenGrid, mrope_angles, mrope_ids, pair_axes
from lessons.lesson_09_qwen_vl.model.prompt import Prompt
from lessons.lesson_09_qwen_vl.model.vision_encoder import VisionEncoder, VisualFeatures
from lessons.lesson_09_qwen_vl.model.weight_names import weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import (
    Attention,
    Block,
    DecoderConfig,
    DynamicScaling,
    KVCache,
    PromptedModel,
    RMSNorm,
    Rotary,
    Scores,
    SwiGLU,
)


class QwenVL(PromptedModel):
    """One class for the three generations, which differ in their config only."""

    def __init__(self, config: QwenVLConfig):
        super().__init__()
        self.config = config
        self.vision_encoder = VisionEncoder(config.vision)
        block = partial(qwen3_block, config.language) if config.generation == "3" else None
        self.language_model = LanguageModel(config.language, block)

    # ── Inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def prompt(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        images: VisualInput | None = None,
        videos: VisualInput | None = None,
        segments: Int[Tensor, "batch tokens"] | None = None,
    ) -> Prompt:
        """Encode images and videos, put their tokens at the image and video tokens, and compute M-RoPE ids.

        Images, and videos, come in reading order over the whole batch. `segments` is −1 for padding, at the end of
        rows. Raises ValueError when visual tokens and images or videos do not fit each other.
        """
        config = self.config
        real = torch.ones_like(token_ids, dtype=torch.bool) if segments is None else segments >= 0
        is_image, is_video = (token_ids == config.image_token_id) & real, (token_ids == config.video_token_id) & real
        kinds = torch.where(is_image, IMAGE, torch.where(is_video, VIDEO, TEXT))
        embeddings = self.embedding(torch.where(kinds == TEXT, token_ids, 0))
        deep = embeddings.new_zeros(len(config.vision.deepstack_layers), *embeddings.shape)
        for visual, positions in ((images, is_image), (videos, is_video)):
            if visual is None:
                features = VisualFeatures(embeddings.new_zeros(0, embeddings.shape[-1]), [])
            else:
                features = self.vision_encoder(visual)
            embeddings = splice_images(embeddings, positions, features.tokens)
            if features.deep:
                # Images and videos have features for the same layers, at different tokens.
                deep = deep + spread_over_text(features.deep, positions)
        grids = {IMAGE: self._grids(images, IMAGE), VIDEO: self._grids(videos, VIDEO)}
        ids = torch.zeros(*token_ids.shape, 3, dtype=torch.long)
        for row, (row_kinds, row_real) in enumerate(zip(kinds.cpu(), real.cpu(), strict=True)):
            ids[row, row_real] = mrope_ids(row_kinds[row_real].tolist(), grids)
        return Prompt(embeddings, ids.to(token_ids.device), real.sum(dim=1), deep)

    def _grids(self, visual: VisualInput | None, kind: int) -> Iterator[TokenGrid]:
        """Yield the grids of merged tokens in reading order; in Qwen3-VL each frame of a video is one by itself."""
        if visual is None:
            return
        seconds = [1.0] * len(visual.grids) if visual.seconds_per_frame is None else visual.seconds_per_frame.tolist()
        merge = self.config.vision.merge_size
        for (frames, rows, columns), step in zip(visual.grids.tolist(), seconds, strict=True):
            if kind == VIDEO and self.config.generation == "3":
                yield from [TokenGrid(1, rows // merge, columns // merge)] * frames
            else:
                absolute = kind == VIDEO and self.config.generation == "2.5"
                time_step = self.config.tokens_per_second * step if absolute else 1.0
                yield TokenGrid(frames, rows // merge, columns // merge, time_step)

    # ── The language model ────────────────────────────────────────────────────────────────────────────────────────

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        images: VisualInput | None = None,
        videos: VisualInput | None = None,
        segments: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return next-token logits at every position; arguments and errors are those of `prompt`."""
        prompt = self.prompt(token_ids, images, videos, segments)
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
        angles, deep = self.angles(prompt.ids_at(positions)), prompt.deep_at(positions)
        x = embeddings
        for layer, block in enumerate(self.language_model.blocks):
            x = block(x, mask=mask, angles=angles, cache=None if cache is None else cache[layer])
            x = add_features(x, deep, layer)
        return self.language_model.norm(x)

    def angles(self, ids: Int[Tensor, "batch tokens 3"]) -> Float[Tensor, "batch tokens pairs"]:
        """Return the rotary angles of tokens with three ids each."""
        rotary = cast(Rotary, self.language_model.rotary)  # the config allows no other positions
        length = ids.max() + 1 if isinstance(self.config.language.rotary_scaling, DynamicScaling) else None
        axes = pair_axes(self.config.sections, self.config.interleaved).to(ids.device)
        return mrope_angles(ids, rotary.frequencies(ids.device, length), axes)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "QwenVL":
        """Load a published Qwen2-VL, Qwen2.5-VL or Qwen3-VL from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_qwen_vl_config(folder)
        model = cls(config)
        load_weights(model, folder, weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        settings = config_mapping.write_qwen_vl_config(self.config)
        save_pretrained(folder, self, weight_names(self.config), settings)


def qwen3_block(config: DecoderConfig, layer: int) -> Block:
    """Build a block of Qwen3: no biases, and an RMSNorm over the queries and the keys of each head."""
    norm = partial(RMSNorm, eps=config.norm_eps)
    attention = Attention(
        config.width,
        config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        bias=False,
        scores=Scores(qk_norm=norm, scale=config.score_scale),
    )
    return Block(attention, SwiGLU(config.width, config.mlp_dim), partial(norm, config.width))
