"""LLaVA-OneVision: one LLaVA for a single image, several images and videos (arXiv:2408.03326)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import Llava, Projector, splice_images
from lessons.lesson_05_llava.model.anyres import cut_into_tiles
from lessons.lesson_05_llava.model.config_mapping import require_published_projector
from lessons.lesson_08_onevision.model import config_mapping
from lessons.lesson_08_onevision.model.config_mapping import OneVisionConfig
from lessons.lesson_08_onevision.model.pooling import Size, pool_patches
from lessons.lesson_08_onevision.model.sequence import PlaceholderIds
from lessons.lesson_08_onevision.model.tiling import VisualLayout, join_frames, join_tiles, pad_to_tile
from lessons.lesson_08_onevision.model.token_budget import ImagePlan, VideoPlan, frame_indices
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder


class EncodedImage(NamedTuple):
    """The features of one image: of the whole as one tile, then of each tile of its grid, if it has tiles.

    size  the image's own (height, width) in pixels
    plan  how its tiles are pooled; None for the published rule
    """

    features: Float[Tensor, "tiles patches vision_width"]
    size: Size
    plan: ImagePlan | None = None


class EncodedVideo(NamedTuple):
    """The features of the frames of one video, and their plan; None for the published rule."""

    features: Float[Tensor, "frames patches vision_width"]
    plan: VideoPlan | None = None


EncodedVisual = EncodedImage | EncodedVideo


class LlavaOneVision(Llava):
    """A LLaVA whose features are a sequence of `EncodedImage` and `EncodedVideo` in the order of their placeholders.

    layout        how images and videos become tokens
    placeholders  the token ids whose positions receive image and video embeddings; the two may be equal

    The features are the output of the encoder's last block, before its final LayerNorm. `newline` is the learned
    embedding at the end of each row of tiles, of each of several images, and of each video.
    """

    def __init__(
        self,
        vision_encoder: nn.Module,
        projector: nn.Module,
        language_model: Decoder,
        *,
        layout: VisualLayout,
        placeholders: PlaceholderIds,
        feature_layers: Sequence[int] = (-1,),
    ):
        super().__init__(
            vision_encoder,
            projector,
            language_model,
            image_token_id=placeholders.image,
            feature_layers=feature_layers,
        )
        self.layout, self.placeholders = layout, placeholders
        width = language_model.config.width
        self.newline = nn.Parameter(torch.randn(width) / width**0.5)

    # ── Encoding ──────────────────────────────────────────────────────────────────────────────────────────────────

    def encode_tiles(
        self, tiles: Float[Tensor, "tiles channels side side"], size: Size, plan: ImagePlan | None = None
    ) -> EncodedImage:
        """Encode one image of a size in pixels from its standardized tiles, the whole image first."""
        return EncodedImage(self.image_features(tiles), size, plan)

    def encode_image(
        self, image: Float[Tensor, "channels height width_px"], *, tiled: bool = True, plan: ImagePlan | None = None
    ) -> EncodedImage:
        """Encode one standardized image: as tiles, or as one of several images.

        plan  its pinpoint decides instead of `tiled`

        Raises ValueError for an image without area.
        """
        side, size = self.layout.tile_size, (image.shape[1], image.shape[2])
        if plan is None:
            pinpoints = self.layout.pinpoints if tiled else ()
        else:
            pinpoints = () if plan.pinpoint is None else (plan.pinpoint,)
        tiles = cut_into_tiles(image, pinpoints, side) if pinpoints else pad_to_tile(image, side)
        return self.encode_tiles(tiles, size, plan)

    def encode_video(
        self, frames: Float[Tensor, "frames channels side side"], plan: VideoPlan | None = None
    ) -> EncodedVideo:
        """Encode standardized frames of the encoder's size; with a plan, as many of them as it has.

        Raises ValueError for a video without frames.
        """
        if not len(frames):
            raise ValueError("a video of 0 frames; expected at least one")
        if plan is not None:
            frames = frames[frame_indices(len(frames), plan.frames)]
        return EncodedVideo(self.image_features(frames), plan)

    # ── From features to the sequence ─────────────────────────────────────────────────────────────────────────────

    def visual_embeddings(self, visual: EncodedVisual) -> Float[Tensor, "visual_tokens language_width"]:
        """Project and join the features of one image or video. Raises ValueError for a video without frames."""
        projected, layout = self.projector(visual.features), self.layout
        if isinstance(visual, EncodedVideo):
            side = layout.video_side if visual.plan is None else visual.plan.side
            return join_frames(projected, self.newline, side)
        if visual.plan is None:
            grid = layout.tiles(visual.size) if len(projected) > 1 else (1, 1)
            return join_tiles(projected, visual.size, grid, self.newline, layout.max_patches)
        height, width = visual.plan.pinpoint or (layout.tile_size, layout.tile_size)
        grid = height // layout.tile_size, width // layout.tile_size
        pooled = pool_patches(projected, visual.plan.side)
        # The tiles are pooled already, so that their number of patches is the limit.
        return join_tiles(pooled, visual.size, grid, self.newline, pooled.shape[0] * pooled.shape[1])

    def image_embeddings(self, features: Sequence[EncodedVisual]) -> Float[Tensor, "all_tokens language_width"]:
        """Project the features of all images and videos into one sequence."""
        return torch.cat([self.visual_embeddings(visual) for visual in features])

    def input_embeddings(
        self, token_ids: Int[Tensor, "batch text"], features: Sequence[EncodedVisual] | None = None
    ) -> Float[Tensor, "batch text language_width"]:
        """Embed the text, with visual embeddings at the placeholders' positions, row by row in reading order.

        Raises ValueError when positions and embeddings differ in number, or are of images and of videos.
        """
        is_visual = torch.isin(token_ids, torch.tensor(self.placeholders, device=token_ids.device))
        text = self.language_model.embedding(torch.where(is_visual, 0, token_ids))
        if not features:
            return splice_images(text, is_visual, text.new_zeros(0, text.shape[-1]))
        parts = [self.visual_embeddings(visual) for visual in features]
        spliced = splice_images(text, is_visual, torch.cat(parts))
        expected = [self.placeholders[isinstance(visual, EncodedVideo)] for visual in features]
        types = torch.tensor(expected).repeat_interleave(torch.tensor([len(part) for part in parts]))
        if not torch.equal(token_ids[is_visual].cpu(), types):
            raise ValueError(
                "an image has positions of a video, or a video those of an image; pass the features in reading order"
            )
        return spliced

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LlavaOneVision":
        """Load a published `LlavaOnevisionForConditionalGeneration` with SigLIP's vision encoder and a Qwen2 or Llama.

        The model is in evaluation mode. Raises CourseError when the folder holds another model.
        """
        config = config_mapping.read_onevision_config(folder)
        model = cls.untrained(config)
        load_weights(model, folder, config_mapping.onevision_weight_names(config))
        return model.eval()

    @classmethod
    def untrained(cls, config: OneVisionConfig) -> "LlavaOneVision":
        """Build a model of the config's sizes with initial weights."""
        vision, language = config.vision_encoder, config.language_model
        features = vision.width * len(config.feature_layers)
        return cls(
            VisionTransformer(vision),
            Projector(features, language.width, bias=config.projector_bias),
            LanguageModel(language),
            layout=config.layout,
            placeholders=config.placeholders,
            feature_layers=config.feature_layers,
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `LlavaOnevisionForConditionalGeneration` reads.

        Raises CourseError when the vision encoder, the projector or the layout has no published form.
        """
        config = self.config()
        settings = config_mapping.write_onevision_config(config)
        save_pretrained(folder, self, config_mapping.onevision_weight_names(config), settings)

    def config(self) -> OneVisionConfig:
        """Return the model's config. Raises CourseError for a part that is another than LLaVA-OneVision's."""
        projector = require_published_projector(self.projector)
        return OneVisionConfig(
            config_mapping.require_vision_transformer(self.vision_encoder),
            self.language_model.config,
            projector.first.bias is not None,
            self.feature_layers,
            self.placeholders,
            self.layout,
        )
