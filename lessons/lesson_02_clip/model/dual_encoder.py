"""The whole: an eye, a reader, and the space in which they meet. Two models, which differ in how their loss compares."""

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_02_clip.model import huggingface
from lessons.lesson_02_clip.model.config import CLIPConfig, SigLIPConfig
from lessons.lesson_02_clip.model.distributed_losses import gathered_info_nce, ring_sigmoid_loss
from lessons.lesson_02_clip.model.losses import similarity
from lessons.lesson_02_clip.model.text_tower import TextTower
from lessons.lesson_02_clip.model.vision_tower import VisionTower
from shared.pretrained import load_weights, save_pretrained

# A larger scale than 100 made training unstable (arXiv:2103.00020, section 2.5).
LARGEST_LOG_SCALE = math.log(100.0)


class CLIP(nn.Module):
    """Images and captions as unit vectors that are near where they belong together (arXiv:2103.00020, figure 3)."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.image_tower = VisionTower(config.image)
        self.text_tower = TextTower(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding, bias=False)
        nn.init.normal_(self.image_projection.weight, std=config.image.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        # Its logarithm is learned: a scale can't become negative, and a step changes it by a share of itself.
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_images(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch embedding"]:
        """One unit vector an image. Raises ValueError for sides that are no multiples of the patch."""
        return unit(self.image_projection(self.image_tower(images)))

    def encode_texts(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """One unit vector a caption. Raises ValueError for a caption longer than the tower's context."""
        return unit(self.text_projection(self.text_tower(tokens)))

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """One over the temperature."""
        return self.log_scale.exp()

    def logits(
        self, images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]
    ) -> Float[Tensor, "images texts"]:
        """How well each image fits each text, by the vectors of both; softmax over texts gives probabilities."""
        return self.logit_scale * similarity(images, texts)

    def forward(
        self, images: Float[Tensor, "images channels height width_px"], tokens: Int[Tensor, "texts tokens"]
    ) -> Float[Tensor, "images texts"]:
        return self.logits(self.encode_images(images), self.encode_texts(tokens))

    def loss(
        self, images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """InfoNCE of vectors that belong together row by row; with several processes, over the rows of all."""
        with torch.no_grad():  # the parameter itself, and not what is made of it: a scale at the limit must find back
            self.log_scale.clamp_(max=LARGEST_LOG_SCALE)
        return gathered_info_nce(images, texts, self.logit_scale)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "CLIP":
        """A published `CLIPModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, lacks weights or holds too many.
        """
        config = huggingface.read_clip_config(folder)
        model = cls(config).to(dtype)
        load_weights(model, folder, huggingface.clip_table(config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        save_pretrained(folder, self, huggingface.clip_table(self.config), huggingface.write_clip_config(self.config))


class SigLIP(nn.Module):
    """The same meeting of two towers, where each pair is judged by itself (arXiv:2303.15343).

    Its picture is pooled by attention and needs no projection; its caption's last token is projected to that width.
    """

    def __init__(self, config: SigLIPConfig):
        super().__init__()
        self.config = config
        self.image_tower = VisionTower(config.image)
        self.text_tower = TextTower(config.text)
        self.text_projection = nn.Linear(config.text.width, config.image.width)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)
        nn.init.zeros_(self.text_projection.bias)
        # The values that section 3.2 starts from, so that at first nearly every pair is called false, as it is.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))

    def encode_images(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch embedding"]:
        """One unit vector an image. Raises ValueError for sides that are no multiples of the patch."""
        return unit(self.image_tower(images))

    def encode_texts(self, tokens: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch embedding"]:
        """One unit vector a caption. Raises ValueError for a caption longer than the tower's context."""
        return unit(self.text_projection(self.text_tower(tokens)))

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """One over the temperature."""
        return self.log_scale.exp()

    def logits(
        self, images: Float[Tensor, "images embedding"], texts: Float[Tensor, "texts embedding"]
    ) -> Float[Tensor, "images texts"]:
        """How well each image fits each text, by the vectors of both; sigmoid gives the probability of each pair."""
        return self.logit_scale * similarity(images, texts) + self.logit_bias

    def forward(
        self, images: Float[Tensor, "images channels height width_px"], tokens: Int[Tensor, "texts tokens"]
    ) -> Float[Tensor, "images texts"]:
        return self.logits(self.encode_images(images), self.encode_texts(tokens))

    def loss(
        self, images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, ""]:
        """The sigmoid loss of vectors that belong together row by row; with several processes, over the rows of all."""
        return ring_sigmoid_loss(images, texts, self.logit_scale, self.logit_bias)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "SigLIP":
        """A published `SiglipModel` from its folder, in evaluation mode.

        Raises CourseError when the folder holds another model, lacks weights or holds too many.
        """
        model = cls(huggingface.read_siglip_config(folder)).to(dtype)
        load_weights(model, folder, huggingface.siglip_table(model.config))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
        config = huggingface.write_siglip_config(self.config)
        save_pretrained(folder, self, huggingface.siglip_table(self.config), config)


def unit(x: Float[Tensor, "batch embedding"]) -> Float[Tensor, "batch embedding"]:
    """Each row brought to length 1: only directions are compared, or long vectors would win every comparison."""
    return F.normalize(x, dim=-1)
