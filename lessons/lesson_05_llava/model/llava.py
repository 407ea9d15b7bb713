"""The whole of LLaVA: an eye, a projector, a language model that reads images as if they were words (arXiv:2304.08485, figure 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import huggingface
from lessons.lesson_05_llava.model.features import image_features
from lessons.lesson_05_llava.model.projector import Projector
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder, Sampling, generate


class Llava(nn.Module):
    """Image → features → as many vectors as there are `<image>` tokens in the text → the language model.

    vision       lesson 2's tower or lesson 1's ViT
    projector    any module that makes of features [images, patches, vision width] tokens [images, n, language width]
    language     any decoder of the course
    image_token  the token whose places in the text are the image's
    layers, class_token   which of the eye's states are its features (features.py)

    What learns takes *features*, not pixels: an eye that stays frozen need look at each image only once.
    """

    def __init__(
        self,
        vision: nn.Module,
        projector: nn.Module,
        language: Decoder,
        *,
        image_token: int,
        layers: Sequence[int] = (-2,),
        class_token: bool = False,
    ):
        super().__init__()
        self.vision, self.projector, self.language = vision, projector, language
        self.image_token, self.layers, self.class_token = image_token, tuple(layers), class_token

    # ── From an image to vectors ──────────────────────────────────────────────────────────────────────────────────

    def image_features(
        self, pixels: Float[Tensor, "images channels height width_px"]
    ) -> Float[Tensor, "images patches vision_width"]:
        """What the eye makes of images: the chosen layer, in reading order."""
        return image_features(self.vision, pixels, self.layers, self.class_token)

    def project(
        self, features: Float[Tensor, "images patches vision_width"]
    ) -> Float[Tensor, "images image_tokens language_width"]:
        """The features as tokens of the language model."""
        return self.projector(features)

    def image_vectors(
        self, features: Float[Tensor, "images patches vision_width"]
    ) -> Float[Tensor, "all_image_tokens language_width"]:
        """The tokens of all images, one behind the other."""
        return self.project(features).flatten(0, 1)

    # ── Reading and answering ─────────────────────────────────────────────────────────────────────────────────────

    def embeddings(
        self, tokens: Int[Tensor, "batch text"], features: Any = None
    ) -> Float[Tensor, "batch text language_width"]:
        """The text as vectors, the images' in the places of the image token: rows from top to bottom, each in reading order.

        features  [images, patches, vision width] of all images of the batch, or None where there are none

        Raises ValueError when there are more or fewer places than vectors for them.
        """
        text = self.language.embedding(torch.where(tokens == self.image_token, 0, tokens))
        vectors = text.new_zeros(0, text.shape[-1]) if features is None else self.image_vectors(features)
        return put_images(text, tokens == self.image_token, vectors)

    def logits(
        self, tokens: Int[Tensor, "batch text"], features: Any = None, segments: Int[Tensor, "batch text"] | None = None
    ) -> Float[Tensor, "batch text vocab"]:
        """Logits of the token after each token; `segments` are 0 for a token and −1 for padding."""
        return self.language(embeddings=self.embeddings(tokens, features), segments=segments)

    def forward(
        self,
        pixels: Float[Tensor, "images channels height width_px"],
        tokens: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """As `logits`, from the images themselves."""
        return self.logits(tokens, self.image_features(pixels), segments)

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Int[Tensor, "_"]], features: Sequence[Any], sampling: Sampling
    ) -> list[Int[Tensor, "_"]]:
        """Continue each prompt (tokens, of any lengths), which has these features for its images, or None.

        Raises ValueError as `embeddings` does.
        """
        device = self.language.embedding.weight.device
        rows = [
            self.embeddings(prompt[None].to(device), seen)[0] for prompt, seen in zip(prompts, features, strict=True)
        ]
        return generate(self.language, rows, sampling)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Llava":
        """A published `LlavaForConditionalGeneration` with CLIP's eye that speaks through a Llama or a Qwen2, to evaluate.

        Raises CourseError when the folder holds another model.
        """
        config = huggingface.read(folder, "llava")
        model = cls(*new_parts(config), **config.choices)
        load_weights(model, folder, huggingface.table(config.vision, config.language))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `LlavaForConditionalGeneration` reads; the projector's scales are folded into its matrix.

        Raises CourseError when the eye is not CLIP's, or the projector not the two matrices with a GELU.
        """
        vision = huggingface.clip_vision(self.vision)
        written = huggingface.write("llava", vision, self)
        self.projector.fold_scales()
        save_pretrained(folder, self, huggingface.table(vision, self.language.config), written)


def put_images(
    text: Float[Tensor, "batch text width"],
    is_image: Bool[Tensor, "batch text"],
    vectors: Float[Tensor, "image_tokens width"],
) -> Float[Tensor, "batch text width"]:
    """The text's vectors, with the images' put where `is_image` says, in reading order.

    Raises ValueError when there are more or fewer places than vectors.
    """
    places = int(is_image.sum())
    if places != len(vectors):
        raise ValueError(
            f"the text has {places} image tokens, but the images take {len(vectors)}; expand each <image> to as many "
            "tokens as its image has"
        )
    # exercise 5.4: images in the places of words, in PyTorch
    return text.masked_scatter(is_image[..., None], vectors.to(text.dtype))
    # end exercise


def new_parts(config: "huggingface.LlavaSettings") -> tuple[VisionTransformer, Projector, LanguageModel]:
    """An eye, a projector and a language model of these sizes, not yet trained."""
    width = config.vision.width * len(config.choices["layers"])
    projector = Projector(width, config.language.width, bias=config.projector_bias)
    return VisionTransformer(config.vision), projector, LanguageModel(config.language)
