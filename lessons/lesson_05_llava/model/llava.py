"""LLaVA: a vision encoder, a projector and a language model (arXiv:2304.08485, figure 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import config_mapping
from lessons.lesson_05_llava.model.config_mapping import LlavaConfig
from lessons.lesson_05_llava.model.projector import Projector
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder, Sampling, generate


class Llava(nn.Module):
    """Encode an image, project its features, and put them at the `<image>` positions of the language model's input.

    vision_encoder     a Vision Transformer
    projector          any module [images, patches, vision_width] → [images, image_tokens, language_width]
    language_model     any decoder of the course
    image_token_id     the token id whose positions receive image embeddings
    feature_layers     which of the encoder's depth + 1 hidden states are the features; several are concatenated
    keep_class_token   whether the tokens before the patches belong to the features

    `logits` and `answer` take *features*, not pixels: a frozen vision encoder needs to encode each image only once.
    """

    vision_encoder: VisionTransformer
    projector: nn.Module
    language_model: Decoder

    def __init__(
        self,
        vision_encoder: nn.Module,
        projector: nn.Module,
        language_model: Decoder,
        *,
        image_token_id: int,
        feature_layers: Sequence[int] = (-2,),
        keep_class_token: bool = False,
    ):
        super().__init__()
        # A model that is given features only may have a placeholder as its encoder.
        self.vision_encoder = cast(VisionTransformer, vision_encoder)
        self.projector, self.language_model = projector, language_model
        self.image_token_id, self.feature_layers = image_token_id, tuple(feature_layers)
        self.keep_class_token = keep_class_token

    def image_features(
        self, pixels: Float[Tensor, "images channels height width_px"]
    ) -> Float[Tensor, "images patches vision_width"]:
        """Return the hidden states that enter the last block, one row per patch (arXiv:2304.08485, section 4.1).

        The last block computes the pooled vector that CLIP compares; before it, each patch still describes its own
        location. The final LayerNorm is not applied, as in the published models.
        """
        encoder = self.vision_encoder
        prefix_tokens = 0 if self.keep_class_token else encoder.config.prefix_tokens
        return select_features(encoder.hidden_states(pixels), self.feature_layers, prefix_tokens)

    def image_embeddings(self, features: Any) -> Float[Tensor, "all_image_tokens language_width"]:
        """Project features [images, patches, vision_width]; the embeddings of all images in one sequence."""
        return self.projector(features).flatten(0, 1)

    def input_embeddings(
        self, token_ids: Int[Tensor, "batch text"], features: Any = None
    ) -> Float[Tensor, "batch text language_width"]:
        """Embed the text, with image embeddings at the image positions, row by row in reading order.

        features  [images, patches, vision_width] of all images of the batch, or None when there are none

        Raises ValueError when the numbers of image positions and image embeddings differ.
        """
        is_image = token_ids == self.image_token_id
        text = self.language_model.embedding(torch.where(is_image, 0, token_ids))
        images = text.new_zeros(0, text.shape[-1]) if features is None else self.image_embeddings(features)
        return splice_images(text, is_image, images)

    def logits(
        self,
        token_ids: Int[Tensor, "batch text"],
        features: Any = None,
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return next-token logits at every position; `segments` are 0 for tokens and −1 for padding."""
        return self.language_model(embeddings=self.input_embeddings(token_ids, features), segments=segments)

    def forward(
        self,
        pixels: Float[Tensor, "images channels height width_px"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits for images given as pixels."""
        return self.logits(token_ids, self.image_features(pixels), segments)

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Int[Tensor, "_"]], features: Sequence[Any], sampling: Sampling
    ) -> list[Int[Tensor, "_"]]:
        """Continue each prompt (token ids of any length), given the features of its images, or None.

        Raises ValueError as `input_embeddings` does.
        """
        device = self.language_model.embedding.weight.device
        rows = [
            self.input_embeddings(prompt[None].to(device), image_features)[0]
            for prompt, image_features in zip(prompts, features, strict=True)
        ]
        return generate(self.language_model, rows, sampling)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Llava":
        """Load a published `LlavaForConditionalGeneration` with CLIP's vision encoder and a Llama or Qwen2.

        The model is in evaluation mode. Raises CourseError when the folder holds another model.
        """
        config = config_mapping.read_llava_config(folder, "llava")
        model = cls(*untrained_parts(config), **config.choices)
        load_weights(model, folder, config_mapping.weight_names(config.vision_encoder, config.language_model))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `LlavaForConditionalGeneration` reads.

        Raises CourseError when the vision encoder or the projector has no published layout.
        """
        config = self.published_config()
        settings = config_mapping.write_llava_config("llava", config)
        names = config_mapping.weight_names(config.vision_encoder, config.language_model)
        save_pretrained(folder, self, names, settings)

    def published_config(self) -> LlavaConfig:
        """Return the model's config. Raises CourseError when the vision encoder or the projector is not LLaVA's."""
        return LlavaConfig(
            config_mapping.require_clip_vision(self.vision_encoder),
            self.language_model.config,
            config_mapping.require_published_projector(self.projector).first.bias is not None,
            {
                "image_token_id": self.image_token_id,
                "feature_layers": self.feature_layers,
                "keep_class_token": self.keep_class_token,
            },
        )


def select_features(
    hidden_states: Sequence[Float[Tensor, "images tokens width"]], layers: Sequence[int], prefix_tokens: int
) -> Float[Tensor, "images patches features"]:
    """Concatenate some hidden states along the width and drop the first `prefix_tokens` tokens, which are not patches.

    hidden_states  the input of the first block, then each block's output: −1 is the last output, −2 the last input
    """
    # exercise 5.3: features from before the last block
    return torch.cat([hidden_states[layer] for layer in layers], dim=-1)[:, prefix_tokens:]
    # end exercise


def splice_images(
    text: Float[Tensor, "batch text width"],
    is_image: Bool[Tensor, "batch text"],
    images: Float[Tensor, "image_tokens width"],
) -> Float[Tensor, "batch text width"]:
    """Put the image embeddings at the positions where `is_image` is True, in reading order.

    Raises ValueError when the numbers of positions and embeddings differ.
    """
    positions = int(is_image.sum())
    if positions != len(images):
        raise ValueError(
            f"the text has {positions} image tokens, but the images take {len(images)}; expand each <image> to as many "
            "tokens as its image has"
        )
    # exercise 5.4: image embeddings at the image positions, in PyTorch
    return text.masked_scatter(is_image[..., None], images.to(text.dtype))
    # end exercise


def untrained_parts(config: LlavaConfig) -> tuple[VisionTransformer, Projector, LanguageModel]:
    """Build a vision encoder, a projector and a language model of the config's sizes."""
    width = config.vision_encoder.width * len(config.choices["feature_layers"])
    projector = Projector(width, config.language_model.width, bias=config.projector_bias)
    return VisionTransformer(config.vision_encoder), projector, LanguageModel(config.language_model)
