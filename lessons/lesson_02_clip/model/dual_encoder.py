"""CLIP and SigLIP: an image encoder, a text encoder and projections into one space; they differ in their loss."""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import config_mapping
from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig
from lessons.lesson_02_clip.model.distributed_losses import gathered_info_nce, ring_sigmoid_loss
from lessons.lesson_02_clip.model.losses import similarity
from lessons.lesson_02_clip.model.text_encoder import TextEncoder
from lessons.lesson_02_clip.model.weight_names import clip_weight_names, siglip_weight_names
from shared.pretrained import load_weights, save_pretrained

# Scales above 100 made training unstable (arXiv:2103.00020, section 2.5).
MAX_LOG_SCALE = math.log(100.0)


class CLIP(nn.Module):
    """Encode images and captions as unit vectors that are similar for matching pairs (arXiv:2103.00020, figure 3)."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.image_encoder = VisionTransformer(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)
        nn.init.normal_(self.image_projection.weight, std=config.image.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        # The logarithm is learned: the scale stays positive, and updates are relative to its size.
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_bias = None
        if config.loss == "sigmoid":
            self.logit_bias = nn.Parameter(torch.tensor(-10.0))
            nn.init.constant_(self.log_scale, 2.302585)  # log 10, as in SigLIP

    def encode_images(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch embedding"]:
        """Return one unit vector per image. Raises ValueError for sides that are no multiples of the patch."""
        return unit_vectors(self.image_projection(self.image_encoder(images)))

    def encode_texts(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """Return one unit vector per caption. Raises ValueError for a caption longer than the context."""
        return unit_vectors(self.text_projection(self.text_encoder(token_ids)))

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Return one over the temperature."""
        return self.log_scale.exp()

    def logits(
        self, images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]
    ) -> Float[Tensor, "images texts"]:
        """Return the scaled similarity of each image and text vector; softmax over texts gives probabilities.

        With the sigmoid loss, a bias is added, and a sigmoid gives the probability of each pair.
        """
        logits = self.logit_scale * similarity(images, texts)
        return logits if self.logit_bias is None else logits + self.logit_bias

    def forward(
        self, images: Float[Tensor, "images channels height width_px"], token_ids: Int[Tensor, "texts tokens"]
    ) -> Float[Tensor, "images texts"]:
        return self.logits(self.encode_images(images), self.encode_texts(token_ids))

    def loss(
        self, images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """Return the loss of vectors that match row by row; with several processes, over the rows of all."""
        if self.logit_bias is not None:
            return ring_sigmoid_loss(images, texts, self.logit_scale, self.logit_bias)
        with torch.no_grad():  # clamp the parameter, not the scale: a clamped scale would have no gradient
            self.log_scale.clamp_(max=MAX_LOG_SCALE)
        return gathered_info_nce(images, texts, self.logit_scale)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "CLIP":
        """Load a published `CLIPModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_clip_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, clip_weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, clip_weight_names(self.config), config_mapping.write_clip_config(self.config))


class SigLIP(nn.Module):
    """Encode images and captions as unit vectors, trained with a loss that is independent per pair (arXiv:2303.15343).

    The image encoder pools by attention and has no projection; the last token of a caption is projected to its width.
    """

    def __init__(self, config: SigLIPConfig):
        super().__init__()
        self.config = config
        self.image_encoder = VisionTransformer(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.text_projection = nn.Linear(config.text.width, config.image.width)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        nn.init.zeros_(self.text_projection.bias)
        # Initial values of section 3.2: at first, nearly every pair is predicted not to match, which is correct.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def encode_images(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch embedding"]:
        """Return one unit vector per image. Raises ValueError for sides that are no multiples of the patch."""
        return unit_vectors(self.image_encoder(images))

    def encode_texts(self, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """Return one unit vector per caption. Raises ValueError for a caption longer than the context."""
        return unit_vectors(self.text_projection(self.text_encoder(token_ids)))

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Return one over the temperature."""
        return self.log_scale.exp()

    def logits(
        self, images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]
    ) -> Float[Tensor, "images texts"]:
        """Return the logit of each image and text, from their vectors; sigmoid gives the probability of a match."""
        return self.logit_scale * similarity(images, texts) + self.logit_bias

    def forward(
        self, images: Float[Tensor, "images channels height width_px"], token_ids: Int[Tensor, "texts tokens"]
    ) -> Float[Tensor, "images texts"]:
        return self.logits(self.encode_images(images), self.encode_texts(token_ids))

    def loss(
        self, images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """Return the sigmoid loss of vectors that match row by row; with several processes, over the rows of all."""
        return ring_sigmoid_loss(images, texts, self.logit_scale, self.logit_bias)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "SigLIP":
        """Load a published `SiglipModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, or its weights do not match the config.
        """
        config = config_mapping.read_siglip_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, siglip_weight_names(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, siglip_weight_names(self.config), config_mapping.write_siglip_config(self.config))


def unit_vectors(x: Float[Tensor, "batch embedding"]) -> Float[Tensor, "batch embedding"]:
    """Normalize each row to length 1, so that vectors are compared by direction only."""
    return F.normalize(x, dim=-1)
