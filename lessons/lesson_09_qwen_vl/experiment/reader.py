"""The model of the experiment: `QwenVL` with lesson 2's image encoder, frozen, in place of its own vision encoder.

Its merger and its language model are trained from scratch. Lesson 0's decoder could take M-RoPE too, because text has
three equal ids. But it was trained on texts of up to 224 tokens, so it has seen the positions that this lesson leaves
out in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_09_qwen_vl.model import QwenVL, QwenVLConfig, VisionConfig, VisualInput
from lessons.lesson_09_qwen_vl.model.merger import Merger
from lessons.lesson_09_qwen_vl.model.positions import TEXT, VIDEO, TokenGrid, mrope_ids, sequential_ids
from lessons.lesson_09_qwen_vl.model.prompt import Prompt
from lessons.lesson_09_qwen_vl.model.vision_encoder import VisualFeatures
from shared.transformer import DecoderConfig

FEATURE_WIDTH, PATCH_SIDE, MERGE_SIZE = 96, 8, 2
"""Lesson 2's encoder: 8 × 8 patches of 96 features per frame."""
TOKEN_SIDE = PATCH_SIDE // MERGE_SIZE
TOKENS_PER_FRAME = TOKEN_SIDE**2


@dataclass(frozen=True)
class ReaderSizes:
    """Sizes of the language model; `sections` are pairs of a head for time, row and column."""

    width: int = 64
    depth: int = 3
    heads: int = 4
    sections: tuple[int, int, int] = (2, 3, 3)
    rotary_base: float = 100.0


class FrozenFeatures(nn.Module):
    """Merge cached features of lesson 2's encoder; it has the interface of `VisionEncoder`."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.merger = Merger(config)

    def forward(self, visual: VisualInput) -> VisualFeatures:
        """Return the merged tokens of features in merge order [patches, 96]."""
        return VisualFeatures(self.merger(visual.patches), [])


def build_reader(vocab_size: int, sizes: ReaderSizes) -> QwenVL:
    """Return an untrained reader. The last two of its `vocab_size` token ids stand for images and videos."""
    vision = VisionConfig(1, FEATURE_WIDTH, 6, FEATURE_WIDTH, sizes.width, merge_size=MERGE_SIZE)
    # Qwen2's biases of queries, keys and values let attention depend on positions alone.
    language = DecoderConfig(
        vocab_size,
        sizes.width,
        sizes.depth,
        sizes.heads,
        sizes.heads,
        4 * sizes.width,
        rotary_base=sizes.rotary_base,
        qkv_bias=True,
        tied=True,
    )
    config = QwenVLConfig(
        "2", vision, language, sizes.sections, image_token_id=vocab_size - 2, video_token_id=vocab_size - 1
    )
    model = QwenVL(config)
    model.vision_encoder = FrozenFeatures(vision)  # type: ignore[assignment]
    return model


def merge_order(features: Float[Tensor, "frames patches width"]) -> Float[Tensor, "frames patches width"]:
    """Reorder the patches of each frame so that the four patches of a token follow each other."""
    return rearrange(
        features, "n (h mh w mw) c -> n (h w mh mw) c", h=TOKEN_SIDE, mh=MERGE_SIZE, w=TOKEN_SIDE, mw=MERGE_SIZE
    )


def sequence_ids(frames: int, text: int, time_step: float | None) -> Int[Tensor, "tokens 3"]:
    """Return the ids of a begin token, a video and a text.

    time_step  time ids per frame; None for one-dimensional positions
    """
    kinds = [TEXT, *[VIDEO] * (frames * TOKENS_PER_FRAME), *[TEXT] * text]
    if time_step is None:
        return sequential_ids(len(kinds))
    return mrope_ids(kinds, {VIDEO: iter([TokenGrid(frames, TOKEN_SIDE, TOKEN_SIDE, time_step)])})


def read_prompt(
    model: QwenVL,
    features: Float[Tensor, "batch frames patches width"],
    token_ids: Int[Tensor, "batch text"],
    ids: Int[Tensor, "batch tokens 3"],
    begin: int,
) -> Prompt:
    """Return the prompt of a begin token, a video and a text; its padding at the end is read like text."""
    batch = len(features)
    video = model.vision_encoder(VisualInput(features.flatten(0, 2), _grids(features))).tokens
    start = model.embedding(torch.full((batch, 1), begin, device=token_ids.device))
    embeddings = torch.cat([start, video.unflatten(0, (batch, -1)), model.embedding(token_ids)], dim=1)
    lengths = torch.full((batch,), embeddings.shape[1], device=token_ids.device)
    return Prompt(embeddings, ids, lengths, embeddings.new_zeros(0, *embeddings.shape))


def text_logits(model: QwenVL, prompt: Prompt, text: int) -> Float[Tensor, "batch text vocab"]:
    """Return the logits that predict each of the last `text` tokens of a prompt."""
    states = model.hidden_states(embeddings=prompt.embeddings, prompt=prompt)
    return model.output(states[:, -text - 1 : -1])


def _grids(features: Tensor) -> Tensor:
    return torch.tensor([[features.shape[1], PATCH_SIDE, PATCH_SIDE]] * len(features))


def parameter_count(modules: Sequence[nn.Module]) -> int:
    """Return the number of trained weights."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
