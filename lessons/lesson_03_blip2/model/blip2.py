"""BLIP-2: a frozen vision encoder, a trained connector and a frozen language model (arXiv:2301.12597, figure 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_03_blip2.model import config_mapping
from lessons.lesson_03_blip2.model.connectors import QFormerConnector
from lessons.lesson_03_blip2.model.losses import language_modeling_loss
from lessons.lesson_03_blip2.model.opt import OPT, is_opt
from lessons.lesson_03_blip2.model.weight_names import blip2_weight_names
from shared.errors import CourseError
from shared.pretrained import load_weights, save_pretrained
from shared.training import Stage
from shared.transformer import Decoder, Sampling, generate


class Blip2(nn.Module):
    """Predict text after an image: image features → connector → prefix of the language model's sequence.

    vision_encoder  any module whose `features(images)` returns tokens [batch, patches, context]
    connector       maps them to tokens of the language model's width
    language_model  any decoder of the course: lesson 0's, or OPT

    The methods take image features, so that a frozen encoder needs to process each image only once.
    """

    def __init__(self, vision_encoder: nn.Module, connector: nn.Module, language_model: Decoder):
        super().__init__()
        self.vision_encoder: Any = vision_encoder
        self.connector, self.language_model = connector, language_model

    def logits(
        self,
        image_features: Float[Tensor, "batch patches context"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits of the token after each text token; the image's tokens come before the text.

        segments  0 for a token, −1 for padding at the end
        """
        prefix = self.connector(image_features)
        if segments is not None:
            segments = torch.cat([segments.new_zeros(prefix.shape[:2]), segments], dim=1)
        embeddings = torch.cat([prefix, self.language_model.embedding(token_ids)], dim=1)
        states = self.language_model.hidden_states(embeddings=embeddings, segments=segments)
        return self.language_model.output(states[:, prefix.shape[1] :])

    def loss(
        self,
        image_features: Float[Tensor, "batch patches context"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, ""]:
        """Return the second stage's loss: the frozen language model's cross-entropy on the text, given the image."""
        return language_modeling_loss(self.logits(image_features, token_ids, segments), token_ids, segments)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        token_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits of `logits`, from pixels."""
        return self.logits(self.vision_encoder.features(images), token_ids, segments)

    @torch.no_grad()
    def generate(
        self, image_features: Float[Tensor, "batch patches context"], prompts: Sequence[Tensor], sampling: Sampling
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt (token ids, of any lengths), which follows its image."""
        prefix = self.connector(image_features)
        embeddings = [
            torch.cat([image_tokens, self.language_model.embedding(prompt.to(prefix.device))])
            for image_tokens, prompt in zip(prefix, prompts, strict=True)
        ]
        return generate(self.language_model, embeddings, sampling)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Blip2":
        """Load a published `Blip2ForConditionalGeneration` with an OPT or a Llama, in evaluation mode.

        Raises CourseError when the folder holds another model.
        """
        vision, qformer, queries, language = config_mapping.read_blip2(folder)
        decoder = OPT(language) if is_opt(language) else LanguageModel(language)
        model = cls(VisionTransformer(vision), QFormerConnector(qformer, queries, language.width), decoder)
        load_weights(model, folder, blip2_weight_names(vision, language))
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, image_token_id: int | None = None) -> None:
        """Write a folder that `Blip2ForConditionalGeneration` loads.

        image_token_id  token that stands for one query in other programs' prompts

        Raises CourseError when the vision encoder is not a plain ViT, or the connector not a Q-Former.
        """
        vision = config_mapping.plain_vision(self.vision_encoder)
        if not isinstance(self.connector, QFormerConnector):
            raise CourseError(f"a published BLIP-2 has a Q-Former; this connector is a {type(self.connector).__name__}")
        qformer, queries, language = (
            self.connector.qformer.config,
            len(self.connector.queries),
            self.language_model.config,
        )
        config = config_mapping.write_blip2(vision, qformer, queries, language) | {"image_token_index": image_token_id}
        save_pretrained(folder, self, blip2_weight_names(vision, language), config)


def first_stage(steps: int) -> tuple[Stage, ...]:
    """Return the stage of the first training, of a `FirstStage`: everything is trained except the vision encoder."""
    trained = (
        "queries",
        "word_embedding.*",
        "position_embedding.*",
        "qformer.*",
        "image_projection.*",
        "text_projection.*",
        "matching_classifier.*",
    )
    return (Stage(steps, ("log_temperature", "lm_*", *(f"retriever.{name}" for name in trained))),)


def second_stage(steps: int) -> tuple[Stage, ...]:
    """Return the stage of the second training: the connector is trained, both pretrained models are frozen."""
    return (Stage(steps, ("connector.*",)),)
