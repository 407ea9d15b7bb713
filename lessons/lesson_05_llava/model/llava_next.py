"""LLaVA-NeXT: LLaVA with images of any resolution, encoded as tiles and as a whole (anyres.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_05_llava.model import config_mapping
from lessons.lesson_05_llava.model.anyres import PINPOINTS, Size, cut_into_tiles, join_tiles, tile_grid, token_count
from lessons.lesson_05_llava.model.llava import Llava, untrained_parts
from shared.errors import CourseError
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder


class TiledImage(NamedTuple):
    """The features of one image, of the whole and of each tile, and the image's own (height, width)."""

    features: Float[Tensor, "tiles patches vision_width"]
    size: Size


class LlavaNext(Llava):
    """A LLaVA for images of any size: its features are a sequence of `TiledImage`, one per image.

    tile_size  side of the encoder's square images in pixels
    pinpoints  the (height, width) sizes that an image can be resized to, each a multiple of `tile_size`

    `newline` is the learned embedding at the end of each row of patches.
    """

    def __init__(
        self,
        vision_encoder: nn.Module,
        projector: nn.Module,
        language_model: Decoder,
        *,
        tile_size: int,
        pinpoints: Sequence[Size] = PINPOINTS,
        **choices: Any,
    ):
        super().__init__(vision_encoder, projector, language_model, **choices)
        self.tile_size, self.pinpoints = tile_size, tuple(pinpoints)
        width = language_model.config.width
        self.newline = nn.Parameter(torch.randn(width) / width**0.5)

    def encode_tiles(self, tiles: Float[Tensor, "tiles channels side side"], size: Size) -> TiledImage:
        """Encode one image of a size from its standardized tiles, as `cut_into_tiles` returns them."""
        return TiledImage(self.image_features(tiles), size)

    def encode_image(self, image: Float[Tensor, "channels height width_px"]) -> TiledImage:
        """Cut one standardized image into tiles and encode them."""
        return self.encode_tiles(
            cut_into_tiles(image, self.pinpoints, self.tile_size), (image.shape[1], image.shape[2])
        )

    def image_embeddings(self, features: Sequence[TiledImage]) -> Float[Tensor, "all_image_tokens language_width"]:
        """Project the features of all images into one sequence; larger images have more tokens."""
        joined = []
        for image in features:
            grid = tile_grid(image.size, self.pinpoints, self.tile_size)
            joined.append(join_tiles(self.projector(image.features), image.size, grid, self.newline))
        return torch.cat(joined)

    def image_tokens(self, size: Size) -> int:
        """Return the number of tokens of an image of this size."""
        return token_count(
            size, self.pinpoints, self.tile_size, self.tile_size // self.vision_encoder.config.patch_size
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LlavaNext":
        """Load a published `LlavaNextForConditionalGeneration` with CLIP's vision encoder and a Llama or Qwen2.

        The model is in evaluation mode. Raises CourseError when the folder holds another model.
        """
        config = config_mapping.read_llava_config(folder, "llava_next")
        side = config.vision_encoder.image_sides[0]
        pinpoints = config_mapping.read_pinpoints(folder, side)
        model = cls(*untrained_parts(config), tile_size=side, pinpoints=pinpoints, **config.choices)
        load_weights(model, folder, config_mapping.weight_names(config.vision_encoder, config.language_model))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `LlavaNextForConditionalGeneration` reads. Raises CourseError as `Llava` does."""
        config = self.published_config()
        if self.tile_size != config.vision_encoder.image_sides[0]:
            raise CourseError(
                f"the tiles have {self.tile_size} pixels, and the vision encoder's images "
                f"{config.vision_encoder.image_size}; a published LLaVA-NeXT has one size for both"
            )
        pinpoints = {"image_grid_pinpoints": [list(size) for size in self.pinpoints]}
        settings = config_mapping.write_llava_config("llava_next", config) | pinpoints
        names = config_mapping.weight_names(config.vision_encoder, config.language_model)
        save_pretrained(folder, self, names, settings)
