"""LLaVA-NeXT: the same model, looking at tiles of an image as well as at the whole (anyres.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_05_llava.model import huggingface
from lessons.lesson_05_llava.model.anyres import PINPOINTS, Size, grid_of, packed, tiles_of, token_count
from lessons.lesson_05_llava.model.llava import Llava, new_parts
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Decoder


class Tiled(NamedTuple):
    """What the eye makes of one image: the features of the whole and of each tile, and the image's own (height, width)."""

    features: Float[Tensor, "tiles patches vision_width"]
    size: Size


class LlavaNext(Llava):
    """A LLaVA whose images may have any size; where `Llava` takes features of a batch, this takes a `Tiled` an image.

    side       of the eye's square images, in pixels
    pinpoints  the sizes that an image can be brought to, each a multiple of `side`

    `newline` is the learned vector behind each row of patches.
    """

    def __init__(
        self,
        vision: nn.Module,
        projector: nn.Module,
        language: Decoder,
        *,
        side: int,
        pinpoints: Sequence[Size] = PINPOINTS,
        **choices: Any,
    ):
        super().__init__(vision, projector, language, **choices)
        self.side, self.pinpoints = side, tuple(pinpoints)
        width = language.config.width
        self.newline = nn.Parameter(torch.randn(width) / width**0.5)

    def look(self, tiles: Float[Tensor, "tiles channels side side"], size: Size) -> Tiled:
        """One image as the eye sees it: `tiles` are what `tiles_of` has cut it into, standardized."""
        return Tiled(self.image_features(tiles), size)

    def look_at(self, image: Float[Tensor, "channels height width_px"]) -> Tiled:
        """The same from the whole image."""
        return self.look(tiles_of(image, self.pinpoints, self.side), (image.shape[1], image.shape[2]))

    def image_vectors(self, features: Sequence[Tiled]) -> Float[Tensor, "all_image_tokens language_width"]:
        """The tokens of all images, one behind the other; larger images have more."""
        return torch.cat(
            [
                packed(self.project(seen.features), seen.size, grid_of(seen.size, self.pinpoints, self.side), self.newline)
                for seen in features
            ]
        )  # fmt: skip

    def image_tokens(self, size: Size) -> int:
        """How many tokens an image of this size takes."""
        return token_count(size, self.pinpoints, self.side, self.side // self.vision.config.patch_size)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LlavaNext":
        """A published `LlavaNextForConditionalGeneration` with CLIP's eye and a Llama or a Qwen2, to evaluate.

        Raises CourseError when the folder holds another model.
        """
        config = huggingface.read(folder, "llava_next")
        pinpoints = huggingface.read_pinpoints(folder)
        model = cls(*new_parts(config), side=config.vision.image_size, pinpoints=pinpoints, **config.choices)
        load_weights(model, folder, huggingface.table(config.vision, config.language))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `LlavaNextForConditionalGeneration` reads. Raises CourseError as `Llava` does."""
        vision = huggingface.clip_vision(self.vision)
        written = huggingface.write("llava_next", vision, self)
        self.projector.fold_scales()
        written["image_grid_pinpoints"] = [list(size) for size in self.pinpoints]
        save_pretrained(folder, self, huggingface.table(vision, self.language.config), written)
