"""SigLIP 2 with a NaFlex image encoder (arXiv:2502.14786): images of any resolution and captions in one space."""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lessons.lesson_02_clip.model import TextEncoder, ring_sigmoid_loss, similarity
from lessons.lesson_02_clip.model.dual_encoder import unit_vectors
from lessons.lesson_06_any_resolution.model import config_mapping
from lessons.lesson_06_any_resolution.model.config import SigLIP2Config
from lessons.lesson_06_any_resolution.model.encoder import NaViT
from lessons.lesson_06_any_resolution.model.packing import PatchBatch
from lessons.lesson_06_any_resolution.model.weight_names import siglip2_weight_names
from shared.pretrained import load_weights, save_pretrained


class SigLIP2(nn.Module):
    """Encode images and captions as unit vectors, as lesson 2's SigLIP does; the images are padded or packed rows.

    Captions are padded to the context length as in training: padding tokens are attended to, and the last one's output
    represents the caption.
    """

    def __init__(self, config: SigLIP2Config):
        super().__init__()
        self.config = config
        self.image_encoder = NaViT(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.text_projection = nn.Linear(config.text.width, config.image.width)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        nn.init.zeros_(self.text_projection.bias)
        # Initial values of arXiv:2303.15343, section 3.2: at first, nearly every pair is predicted not to match.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def encode_images(self, batch: PatchBatch) -> Float[Tensor, "images embedding"]:
        """Return one unit vector per image, in the order of the images. Raises as `NaViT` does."""
        return unit_vectors(self.image_encoder(batch))

    def encode_texts(self, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "texts embedding"]:
        """Return one unit vector per caption. Raises ValueError for a caption longer than the context."""
        return unit_vectors(self.text_projection(self.text_encoder(token_ids)))

    def logits(
        self, images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]
    ) -> Float[Tensor, "images texts"]:
        """Return the logit of each image and text, from their vectors; sigmoid gives the probability of a match."""
        return self.log_scale.exp() * similarity(images, texts) + self.logit_bias

    def forward(self, batch: PatchBatch, token_ids: Int[Tensor, "texts tokens"]) -> Float[Tensor, "images texts"]:
        return self.logits(self.encode_images(batch), self.encode_texts(token_ids))

    def loss(
        self, images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """Return the sigmoid loss of vectors that match row by row; with several processes, over the rows of all."""
        return ring_sigmoid_loss(images, texts, self.log_scale.exp(), self.logit_bias)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "SigLIP2":
        """Load a published `Siglip2Model` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        model = cls(config_mapping.read_siglip2_config(folder)).to(dtype)
        load_weights(model, folder, siglip2_weight_names())
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, siglip2_weight_names(), config_mapping.write_siglip2_config(self.config))
