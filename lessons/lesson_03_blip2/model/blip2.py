"""The whole of BLIP-2: a frozen eye, a bridge that learns, a frozen language model that speaks (arXiv:2301.12597, figure 1)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_03_blip2.model import huggingface
from lessons.lesson_03_blip2.model.bridges import QFormerBridge
from lessons.lesson_03_blip2.model.huggingface_names import blip2_table
from lessons.lesson_03_blip2.model.losses import writing_loss
from lessons.lesson_03_blip2.model.opt import OPT
from shared.pretrained import load_weights, save_pretrained
from shared.training import Stage
from shared.transformer import Decoder, Sampling, generate


class Blip2(nn.Module):
    """Image → features → a few vectors → the language model's first tokens; then text.

    vision    any module whose `features(images)` gives tokens [batch, patches, context]
    bridge    makes of them tokens as wide as the language model's own
    language  any decoder of the course: the one of lesson 0, or OPT

    As in the first stage, what learns takes image *features*: a frozen eye need look at each image only once.
    """

    def __init__(self, vision: nn.Module, bridge: nn.Module, language: Decoder):
        super().__init__()
        self.vision, self.bridge, self.language = vision, bridge, language

    def logits(
        self,
        features: Float[Tensor, "batch patches context"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Logits of the token after each token of the text, which stands behind the image's vectors.

        segments  0 for a token, −1 for padding at the end
        """
        prefix = self.bridge(features)
        if segments is not None:
            segments = torch.cat([segments.new_zeros(prefix.shape[:2]), segments], dim=1)
        embeddings = torch.cat([prefix, self.language.embedding(tokens)], dim=1)
        read = self.language.hidden_states(embeddings=embeddings, segments=segments)
        return self.language.output(read[:, prefix.shape[1] :])

    def loss(
        self,
        features: Float[Tensor, "batch patches context"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"],
    ) -> Float[Tensor, ""]:
        """The second stage's loss: how much the frozen language model is surprised by the text, given the image."""
        return writing_loss(self.logits(features, tokens, segments), tokens, segments)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width_px"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """As `logits`, from the images themselves."""
        return self.logits(self.vision.features(images), tokens, segments)

    @torch.no_grad()
    def answer(
        self, features: Float[Tensor, "batch patches context"], prompts: Sequence[Tensor], sampling: Sampling
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt (tokens, of any lengths), with its image before it."""
        prefix = self.bridge(features)
        device = prefix.device
        rows = [
            torch.cat([vectors, self.language.embedding(prompt.to(device))])
            for vectors, prompt in zip(prefix, prompts, strict=True)
        ]
        return generate(self.language, rows, sampling)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Blip2":
        """A published `Blip2ForConditionalGeneration` that speaks through an OPT or a Llama, in evaluation mode.

        Raises CourseError when the folder holds another model.
        """
        vision, qformer, queries, language = huggingface.read_blip2(folder)
        decoder = OPT(language) if language.positions == "learned" else LanguageModel(language)
        model = cls(VisionTransformer(vision), QFormerBridge(qformer, queries, language.width), decoder)
        load_weights(model, folder, blip2_table(vision, language))
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, image_token: int | None = None) -> None:
        """Write the folder that `Blip2ForConditionalGeneration` reads.

        image_token  the token that stands for one query in other programs' prompts

        Raises CourseError when the eye is no plain ViT, or the bridge no Q-Former.
        """
        vision = huggingface.plain_vision(self.vision)
        written = huggingface.write_blip2(vision, self.bridge, self.language.config, image_token)
        save_pretrained(folder, self, blip2_table(vision, self.language.config), written)


def second_stage(steps: int) -> tuple[Stage, ...]:
    """The one stage of the second training: the bridge learns, the eye and the language model stay as they are."""
    return (Stage(steps, ("bridge.*",)),)


def first_stage(steps: int) -> tuple[Stage, ...]:
    """The one stage of the first training, of a `FirstStage`: all of it learns but the eye."""
    learns = ("queries", "words.*", "positions.*", "qformer.*", "image_projection.*", "text_projection.*", "match.*")
    return (Stage(steps, ("log_temperature", "writer*", *(f"retriever.{name}" for name in learns))),)
