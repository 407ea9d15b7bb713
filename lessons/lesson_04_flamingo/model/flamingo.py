"""Flamingo: a frozen vision encoder, a frozen language model, and trained layers between them (arXiv:2204.14198)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_04_flamingo.model import config_mapping
from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from lessons.lesson_04_flamingo.model.gated_cross_attention import GatedCrossAttention
from lessons.lesson_04_flamingo.model.interleaved import cross_attention_mask
from lessons.lesson_04_flamingo.model.resampler import PerceiverResampler
from lessons.lesson_04_flamingo.model.weight_names import idefics_weight_names
from shared.pretrained import load_weights, save_pretrained
from shared.training import Stage
from shared.transformer import KVCache, Sampling, VisionLanguageModel, generate


class Flamingo(VisionLanguageModel):
    """Predict text with interleaved images: resampled images enter between the language model's blocks (figure 3).

    vision_encoder  its `hidden_states(images)` returns the tokens before and after every block; the last are used
    language_model  any Llama of the course

    The methods take image features [batch, images, patches, width], so that a frozen encoder needs to process each
    image only once. Raises ValueError when the interval of cross-attention does not divide the number of blocks.
    """

    def __init__(self, config: FlamingoConfig, vision_encoder: nn.Module, language_model: LanguageModel):
        super().__init__()
        depth, interval = language_model.config.depth, config.cross_attention_interval
        if depth % interval:
            raise ValueError(f"cross-attention before every {interval} blocks does not fit {depth} blocks")
        self.config = config
        self.vision_encoder: Any = vision_encoder
        self.language_model = language_model
        self.resampler = PerceiverResampler(config.resampler)
        self.cross_attention_layers = nn.ModuleList(
            GatedCrossAttention(config, language_model.config) for _ in range(depth // interval)
        )

    def resample(
        self, image_features: Float[Tensor, "batch images patches width"]
    ) -> Float[Tensor, "batch images latents width"]:
        """Return the visual tokens of every image, equally many for any number of patches."""
        return self.resampler(image_features.flatten(0, 1)).unflatten(0, image_features.shape[:2])

    def encode_images(
        self, images: Float[Tensor, "batch images channels height width_px"]
    ) -> Float[Tensor, "batch images latents width"]:
        """Return the visual tokens of images given as pixels."""
        image_features = self.vision_encoder.hidden_states(images.flatten(0, 1))[-1]
        return self.resample(image_features.unflatten(0, images.shape[:2]))

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        visual_tokens: Float[Tensor, "batch images latents width"],
        image_index: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Return the logits of the token after each token.

        image_index  image of its row that each token attends to; −1 for none (interleaved.py)
        segments     document of its row that each token belongs to; −1 is padding
        """
        embeddings = self.embedding(token_ids)
        return self.output(
            self.hidden_states(embeddings, visual_tokens=visual_tokens, image_index=image_index, segments=segments)
        )

    def hidden_states(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        *,
        visual_tokens: Float[Tensor, "batch images latents visual_width"],
        image_index: Int[Tensor, "batch indexed_tokens"],
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the final hidden states: before every n-th frozen block, tokens attend to their image.

        image_index  of the first tokens of each row, cached ones included; later tokens have the last index of the row
        """
        start = 0 if cache is None else cache.length
        columns = torch.arange(start, start + embeddings.shape[1], device=image_index.device)
        image_index = image_index[:, columns.clamp(max=image_index.shape[1] - 1)]
        visual_mask = cross_attention_mask(image_index, *visual_tokens.shape[1:3])
        visual_tokens = visual_tokens.flatten(1, 2)
        x, angles, mask = self.language_model.block_inputs(embeddings, positions, segments, cache)
        masks = self.language_model.layer_masks(mask)
        for layer, block in enumerate(self.language_model.blocks):
            if layer % self.config.cross_attention_interval == 0:
                cross_attention = self.cross_attention_layers[layer // self.config.cross_attention_interval]
                x = cross_attention(x, visual_tokens, visual_mask)
            x = block(x, mask=masks[layer], angles=angles, cache=None if cache is None else cache[layer])
        return self.language_model.norm(x)

    # ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Tensor],
        visual_tokens: Float[Tensor, "batch images latents width"],
        image_indices: Sequence[Tensor],
        sampling: Sampling,
        *,
        use_cache: bool = True,
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt (token ids [length], any lengths); new tokens attend to the prompt's last image.

        image_indices  for each prompt, the image of its row of `visual_tokens` that each token attends to
        """
        longest = max(map(len, image_indices))
        padded = [torch.cat([row, row[-1:].expand(longest - len(row))]) for row in image_indices]
        image_index = torch.stack(padded).to(visual_tokens.device)
        inputs = {"visual_tokens": visual_tokens, "image_index": image_index}
        return generate(self, prompts, sampling, use_cache=use_cache, model_inputs=inputs)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Flamingo":
        """Load a published `IdeficsForVisionText2Text` in evaluation mode. Raises CourseError for another model."""
        config, vision, language, added_tokens = config_mapping.read_idefics(folder)
        model = cls(config, VisionTransformer(vision), LanguageModel(language))
        names = idefics_weight_names(config, vision, language.vocab_size - added_tokens, added_tokens)
        load_weights(model, folder, names)
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, added_tokens: int = 0) -> None:
        """Write a folder that `IdeficsForVisionText2Text` loads.

        added_tokens  number of tokens at the end of the vocabulary that the language model did not have before, such
                      as `<image>`; the published class stores their vectors separately

        Raises CourseError for a model that no published class supports.
        """
        language = self.language_model.config
        settings = config_mapping.write_idefics(self.config, self.vision_encoder, language, added_tokens)
        vision = self.vision_encoder.config
        names = idefics_weight_names(self.config, vision, language.vocab_size - added_tokens, added_tokens)
        save_pretrained(folder, self, names, settings)


def text_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    token_ids: Int[Tensor, "batch tokens"],
    loss_mask: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats, of the tokens in `loss_mask`, each given the tokens before it.

    The mask must leave out padding, the first token of a row, and `<image>` tokens, which are never generated.
    """
    # exercise 4.6: the cross-entropy of the tokens in the loss mask
    loss_mask = loss_mask[:, 1:]
    return F.cross_entropy(logits[:, :-1][loss_mask], token_ids[:, 1:][loss_mask])
    # end exercise


def text_token_mask(
    token_ids: Int[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"], image_token_id: int
) -> Bool[Tensor, "batch tokens"]:
    """Return a loss mask of all text: tokens that follow another token of their document and are not `<image>`."""
    follows = torch.zeros_like(token_ids, dtype=torch.bool)
    follows[:, 1:] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    return follows & (token_ids != image_token_id)


def training_stage(steps: int) -> tuple[Stage, ...]:
    """Return the only stage: resampler and inserted layers are trained, the rest is frozen (section 2.2)."""
    return (Stage(steps, ("resampler.*", "cross_attention_layers.*")),)
