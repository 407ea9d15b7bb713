"""The vision part of an InternVL: tiles → patches → visual tokens of the language model's width.

It needs nothing of the language model, so that it can run in a process of its own (deployment.py).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lessons.lesson_10_internvl.model.config import InternVLConfig
from lessons.lesson_10_internvl.model.projector import UnshuffleProjector
from lessons.lesson_10_internvl.model.router import ResolutionRouter
from lessons.lesson_10_internvl.model.vision_encoder import InternViT


class VisualTokens(NamedTuple):
    """The visual tokens of some tiles, one tile after the other, and their number per tile."""

    embeddings: Float[Tensor, "all_tokens language_width"]
    counts: Int[Tensor, "tiles"]


class TileEncoder(nn.Module):
    """Encode tiles; with a router, each tile gets all its visual tokens or a quarter of them."""

    coarse_projector: UnshuffleProjector | None
    router: ResolutionRouter | None

    def __init__(self, config: InternVLConfig):
        super().__init__()
        self.config = config
        self.vision_encoder = InternViT(config.vision)
        self.projector = self._projector(config, config.unshuffle)
        self.coarse_projector = self._projector(config, 2 * config.unshuffle) if config.router else None
        self.router = ResolutionRouter(config.vision.width) if config.router else None

    @staticmethod
    def _projector(config: InternVLConfig, factor: int) -> UnshuffleProjector:
        width, activation = config.vision.width, config.projector_activation
        return UnshuffleProjector(width, config.language.width, factor=factor, activation=activation)

    def features(
        self, tiles: Float[Tensor, "tiles channels height width_px"]
    ) -> Float[Tensor, "tiles rows columns width"]:
        """Return the features of the patches. Raises ValueError for tiles that do not divide into patches."""
        return self.vision_encoder(tiles, self.config.feature_layer)

    @torch.no_grad()
    def route(self, grid: Float[Tensor, "tiles rows columns width"]) -> Bool[Tensor, "tiles"]:
        """Return which tiles get all their tokens: those of a probability of at least 1/2, or all without a router."""
        if self.router is None:
            return torch.ones(len(grid), dtype=torch.bool, device=grid.device)
        return self.router(grid) >= 0

    def visual_tokens(
        self, grid: Float[Tensor, "tiles rows columns width"], full: Bool[Tensor, "tiles"] | None = None
    ) -> VisualTokens:
        """Project features to visual tokens.

        full  which tiles get all their tokens; None: the router decides

        Raises ValueError when tiles are to be compressed by a model without a router.
        """
        full = self.route(grid) if full is None else full
        if self.coarse_projector is None:
            if not full.all():
                raise ValueError("this model cannot compress tiles; set router=True in its config")
            tokens = self.projector(grid)
            counts = torch.full((len(grid),), tokens.shape[1], device=grid.device)
            return VisualTokens(tokens.flatten(0, 1), counts)
        fine, coarse = iter(self.projector(grid[full])), iter(self.coarse_projector(grid[~full]))
        tokens = [next(fine) if each else next(coarse) for each in full.tolist()]
        counts = torch.tensor([len(each) for each in tokens], dtype=torch.long, device=grid.device)
        return VisualTokens(torch.cat(tokens) if tokens else grid.new_zeros(0, self.config.language.width), counts)

    def forward(
        self, tiles: Float[Tensor, "tiles channels height width_px"], full: Bool[Tensor, "tiles"] | None = None
    ) -> VisualTokens:
        """Return the visual tokens of tiles. Raises as `features` and `visual_tokens` do."""
        return self.visual_tokens(self.features(tiles), full)


def expand_images(
    token_ids: Int[Tensor, "text"], counts: Int[Tensor, "tiles"], tiles: Int[Tensor, "images"], image_token_id: int
) -> Int[Tensor, "tokens"]:
    """Repeat each image token as often as its image has visual tokens; all other token ids occur once.

    counts  number of visual tokens of each tile, image by image
    tiles   number of tiles of each image

    Raises ValueError when the numbers of image tokens and images, or of their tiles and of all tiles, differ.
    """
    is_image = token_ids == image_token_id
    if int(is_image.sum()) != len(tiles) or int(tiles.sum()) != len(counts):
        raise ValueError(
            f"the text has {int(is_image.sum())} image tokens for {len(tiles)} images, and the images have "
            f"{int(tiles.sum())} tiles of {len(counts)}; expected the same numbers"
        )
    repeats = torch.ones_like(token_ids)
    repeats[is_image] = torch.stack([part.sum() for part in counts.split(tiles.tolist())]) if len(tiles) else tiles
    return token_ids.repeat_interleave(repeats)
