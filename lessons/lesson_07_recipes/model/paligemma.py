"""PaliGemma (arXiv:2407.07726) and PaliGemma 2 (arXiv:2412.03555): SigLIP, one linear layer, and a Gemma.

An input is one sequence: the image's tokens, a prompt, and an answer. Image and prompt are the *prefix*, whose tokens
attend to each other in both directions; the answer is the *suffix*, which is causal and is all that is learned
(arXiv:2407.07726, section 3.1 and figure 2). In the mask algebra, the prefix is one span of a causal mask.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import splice_images
from lessons.lesson_07_recipes.model import paligemma_config_mapping
from lessons.lesson_07_recipes.model.gemma import Gemma
from lessons.lesson_07_recipes.model.paligemma_config_mapping import PaliGemmaConfig
from shared.attention import Mask
from shared.errors import CourseError
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder, KVCache, Sampling, VisionLanguageModel, generate

PREFIX, SUFFIX = 0, 1
"""The published `token_type_ids`."""


def prefix_spans(
    token_type_ids: Int[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"]
) -> Int[Tensor, "batch tokens"]:
    """Return the span of each token for `shared.attention.Mask`: its segment in the prefix, −1 elsewhere.

    token_type_ids  0 in the prefix, 1 in the suffix
    segments        example of its row that each token belongs to; −1 is padding, which has no span
    """
    # exercise 7.9: the span of the prefix
    return torch.where(token_type_ids == PREFIX, segments, -1)
    # end exercise


def prefix_mask_matrix(
    token_type_ids: Int[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"]
) -> Bool[Tensor, "batch tokens tokens"]:
    """Return the dense mask, for a figure: True where the key (column) is visible to the query (row)."""
    spans = prefix_spans(token_type_ids, segments)
    mask = Mask(causal=True, segment_q=segments, segment_k=segments, span_q=spans, span_k=spans)
    return mask.visible(spans.shape[1], spans.shape[1])


class PaliGemma(VisionLanguageModel):
    """Encode an image, project its features, and put them before the text of a prefix language model.

    vision_encoder  a Vision Transformer; its features are the patches after the last norm
    projector       linear layer [vision_width] → [language_width]
    language_model  a Gemma; its config has `position_offset` 1, since positions count from 1
    image_token_id  the token id whose positions receive image embeddings

    `logits` and `answer` take *features*, not pixels: a frozen vision encoder needs to encode each image only once.
    Token embeddings are multiplied by √width by the language model's own embedding; image embeddings are not.

    In Gemma 2's local layers the window limits the prefix too, in both directions, as in the authors' code. Version 5
    of transformers lets the tokens of a prefix attend beyond the window; only for a longer prefix do outputs differ.
    """

    vision_encoder: VisionTransformer

    def __init__(
        self, vision_encoder: nn.Module, projector: nn.Module, language_model: Decoder, *, image_token_id: int
    ):
        super().__init__()
        # A model that is given features only may have a placeholder as its encoder.
        self.vision_encoder = cast(VisionTransformer, vision_encoder)
        self.projector, self.language_model = projector, language_model
        self.image_token_id = image_token_id

    def image_features(
        self, pixels: Float[Tensor, "images channels height width_px"]
    ) -> Float[Tensor, "images patches vision_width"]:
        """Return one vector per patch, after the encoder's last norm."""
        return self.vision_encoder.features(pixels)

    def input_embeddings(
        self, token_ids: Int[Tensor, "batch text"], features: Float[Tensor, "images patches vision_width"] | None = None
    ) -> Float[Tensor, "batch text language_width"]:
        """Embed the text, with projected features at the image positions, row by row in reading order.

        Raises ValueError when the numbers of image positions and image embeddings differ.
        """
        is_image = token_ids == self.image_token_id
        text = self.embedding(torch.where(is_image, 0, token_ids))
        images = text.new_zeros(0, text.shape[-1]) if features is None else self.projector(features).flatten(0, 1)
        return splice_images(text, is_image, images)

    def logits(
        self,
        token_ids: Int[Tensor, "batch text"],
        features: Float[Tensor, "images patches vision_width"] | None,
        token_type_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return next-token logits at every position.

        token_type_ids  0 in the prefix (image and prompt), 1 in the suffix
        segments        0 for tokens and −1 for padding; or the example that each token belongs to, in packed rows
        """
        embeddings = self.input_embeddings(token_ids, features)
        return self.output(self.hidden_states(embeddings, token_type_ids=token_type_ids, segments=segments))

    def forward(
        self,
        pixels: Float[Tensor, "images channels height width_px"],
        token_ids: Int[Tensor, "batch text"],
        token_type_ids: Int[Tensor, "batch text"],
        segments: Int[Tensor, "batch text"] | None = None,
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits for images given as pixels; the other arguments are those of `logits`."""
        return self.logits(token_ids, self.image_features(pixels), token_type_ids, segments)

    def hidden_states(
        self,
        embeddings: Float[Tensor, "batch tokens width"],
        *,
        token_type_ids: Int[Tensor, "batch typed_tokens"],
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the final hidden states of the language model.

        token_type_ids  of the first tokens of each row, cached ones included; later tokens belong to the suffix. The
                        whole prefix must be in one call, since its tokens attend to later ones
        """
        start = 0 if cache is None else cache.length
        end = start + embeddings.shape[1]
        types = F.pad(token_type_ids, (0, max(0, end - token_type_ids.shape[1])), value=SUFFIX)[:, start:end]
        spans = prefix_spans(types, torch.zeros_like(types) if segments is None else segments)
        return self.language_model.hidden_states(
            embeddings=embeddings, positions=positions, segments=segments, spans=spans, cache=cache
        )

    # ── Generation ────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def answer(
        self,
        prompts: Sequence[Int[Tensor, "_"]],
        features: Sequence[Any],
        sampling: Sampling,
        *,
        use_cache: bool = True,
    ) -> list[Int[Tensor, "_"]]:
        """Continue each prompt, which is the prefix: token ids of any length, with image tokens.

        features  for each prompt, the features [images, patches, vision_width] of its images, or None

        Raises ValueError as `input_embeddings` does.
        """
        device = self.embedding.weight.device
        rows = [
            self.input_embeddings(prompt[None].to(device), image_features)[0]
            for prompt, image_features in zip(prompts, features, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        columns = torch.arange(int(lengths.max()), device=device)
        types = torch.where(columns < lengths[:, None], PREFIX, SUFFIX)
        return generate(self, rows, sampling, use_cache=use_cache, model_inputs={"token_type_ids": types})

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "PaliGemma":
        """Load a published `PaliGemmaForConditionalGeneration` over a Gemma or Gemma 2, in evaluation mode.

        Raises CourseError when the folder holds another model.
        """
        config = paligemma_config_mapping.read_paligemma_config(folder)
        vision, language = config.vision_encoder, config.language_model
        projector = nn.Linear(vision.width, language.width)
        model = cls(VisionTransformer(vision), projector, Gemma(language), image_token_id=config.image_token_id)
        load_weights(model, folder, paligemma_config_mapping.paligemma_weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `PaliGemmaForConditionalGeneration` reads.

        Raises CourseError when the vision encoder, the projector or the language model is another than PaliGemma's.
        """
        if not isinstance(self.vision_encoder, VisionTransformer) or type(self.projector) is not nn.Linear:
            raise CourseError(
                "a published PaliGemma has SigLIP's vision encoder and one linear layer as its projector; this model "
                f"has a {type(self.vision_encoder).__name__} and a {type(self.projector).__name__}"
            )
        config = PaliGemmaConfig(self.vision_encoder.config, self.language_model.config, self.image_token_id)
        settings = paligemma_config_mapping.write_paligemma_config(config)
        save_pretrained(folder, self, paligemma_config_mapping.paligemma_weight_names(config), settings)
