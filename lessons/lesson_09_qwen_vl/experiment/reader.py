"""The model of the experiment: `QwenVL` with lesson 2's image encoder, frozen, in place of its own vision encoder.

The language model is lesson 0's decoder. It takes M-RoPE unchanged, because text has three equal ids. It was trained on
texts of up to about 170 tokens, in rows of 224. So it has computed attention over ids as distant as the M-RoPE ids of
every clip here, as Qwen2 had before it was trained on videos. One-dimensional positions of 10 and 20 frames lie beyond
these texts. A language model from scratch, the control, has computed attention at the ids of its training clips only.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
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
Sections = tuple[int, int, int]
"""Rotary pairs of a head for time, row and column."""


@dataclass(frozen=True)
class ReaderSizes:
    """Sizes of a language model from scratch."""

    width: int = 64
    depth: int = 3
    heads: int = 4
    rotary_base: float = 100.0


class FrozenFeatures(nn.Module):
    """Merge cached features of lesson 2's encoder; it has the interface of `VisionEncoder`."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.merger = Merger(config)

    def forward(self, visual: VisualInput) -> VisualFeatures:
        """Return the merged tokens of features in merge order [patches, 96]."""
        return VisualFeatures(self.merger(visual.patches), [])


def pretrained_reader(sections: Sections) -> QwenVL:
    """Return a reader with the weights of lesson 0's decoder and an untrained merger."""
    pretrained = load_language_model()[0]
    model = build_reader(replace(pretrained.config, vocab_size=pretrained.config.vocab_size + 2), sections)
    weights = pretrained.state_dict()
    table = torch.cat([weights["embedding.weight"], model.embedding.weight[-2:].detach()])
    model.language_model.load_state_dict(weights | {"embedding.weight": table, "output.weight": table})
    return model


def untrained_reader(vocab_size: int, sizes: ReaderSizes, sections: Sections) -> QwenVL:
    """Return a reader without any trained weights; two token ids are added to the `vocab_size` of the tokenizer."""
    # Qwen2's biases of queries, keys and values let attention depend on positions alone.
    language = DecoderConfig(
        vocab_size + 2,
        sizes.width,
        sizes.depth,
        sizes.heads,
        sizes.heads,
        4 * sizes.width,
        rotary_base=sizes.rotary_base,
        qkv_bias=True,
        tied=True,
    )
    return build_reader(language, sections)


def build_reader(language: DecoderConfig, sections: Sections) -> QwenVL:
    """Return an untrained reader. The last two token ids of its language model stand for images and videos.

    sections  pairs of a head for time, row and column
    """
    vision = VisionConfig(1, FEATURE_WIDTH, 6, FEATURE_WIDTH, language.width, merge_size=MERGE_SIZE)
    image_token_id, video_token_id = language.vocab_size - 2, language.vocab_size - 1
    config = QwenVLConfig("2", vision, language, sections, image_token_id=image_token_id, video_token_id=video_token_id)
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
