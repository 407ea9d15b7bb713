"""The judge: a small residual network that predicts, for each place of an image, which object lies there."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.scene import COLORS, PLACES, SHAPES, SIZES, TEXTURES
from shared.pretrained import Rename, Setting, WeightNames, load_weights, read_config, read_settings, save_pretrained
from shared.pretrained.config_mapping import write_settings
from shared.pretrained.setting_values import integer

MODEL_TYPE = "toy_world_judge"
IMAGE_SIZE = 64
"""Side of the network's input in pixels; `shared.judge.pixels` brings images of other sizes to it."""
ATTRIBUTES = {"shape": SHAPES, "color": COLORS, "size": SIZES, "texture": TEXTURES}
"""The attributes that are predicted for the object at a place, each with its values in the order of the logits."""


@dataclass(frozen=True)
class JudgeConfig:
    """Describe the network's size: the channels of its three stages, and of the head."""

    fine_width: int = 32
    middle_width: int = 64
    coarse_width: int = 128
    head_width: int = 128


_SETTINGS = [Setting(name, name, accept=integer()) for name in asdict(JudgeConfig())]
# The file has the names of the modules below, which have one to four parts.
_NAMES = WeightNames([Rename(name, name) for name in ("{a}", "{a}.{b}", "{a}.{b}.{c}", "{a}.{b}.{c}.{d}")])


class PlaceLogits(NamedTuple):
    """What the judge predicts for each of the nine places.

    presence    logit that an object lies at the place
    attributes  for each of `ATTRIBUTES` the logits of its values, if there is an object
    center      x and y of the object's center, relative to the place's center, in halves of the place's width
    """

    presence: Float[Tensor, "batch 9"]
    attributes: dict[str, Float[Tensor, "batch 9 values"]]
    center: Float[Tensor, "batch 9 2"]


class ResidualBlock(nn.Module):
    """Compute relu(shortcut(x) + F(x)), where F is convolution, norm, relu, convolution, norm (arXiv:1512.03385)."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(
        self, maps: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out out_height out_width"]:
        branch = F.relu(self.norm1(self.conv1(maps)))
        return F.relu(self.shortcut(maps) + self.norm2(self.conv2(branch)))


class Judge(nn.Module):
    """Predict the objects of toy-world images, place by place.

    Residual stages shrink an image from 64 to 32, 16 and 8 positions per side. Learned position vectors are added
    before the last stage. For each place, attention with one learned query pools the last map into one vector, and
    one head shared by all places predicts presence, attributes and center from it.
    """

    def __init__(self, config: JudgeConfig = JudgeConfig()):
        super().__init__()
        self.config = config
        fine, middle, coarse = config.fine_width, config.middle_width, config.coarse_width
        # Windows of 4 × 4 pixels at stride 2: a 32 × 32 image, whose pixels are doubled, keeps its resolution.
        self.stem = nn.Sequential(nn.Conv2d(3, fine, 4, 2, padding=1, bias=False), nn.BatchNorm2d(fine), nn.ReLU())
        self.fine_stage = ResidualBlock(fine, fine, 1)
        self.middle_stage = nn.Sequential(ResidualBlock(fine, middle, 2), ResidualBlock(middle, middle, 1))
        self.positions = nn.Parameter(torch.zeros(middle, IMAGE_SIZE // 4, IMAGE_SIZE // 4))
        self.coarse_stage = nn.Sequential(ResidualBlock(middle, coarse, 2), ResidualBlock(coarse, coarse, 1))
        self.queries = nn.Conv2d(coarse, len(PLACES), 1)
        self.widths = [1, *(len(values) for values in ATTRIBUTES.values()), 2]
        self.head = nn.Sequential(
            nn.Linear(coarse, config.head_width), nn.ReLU(), nn.Linear(config.head_width, sum(self.widths))
        )
        nn.init.normal_(self.positions, std=0.02)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions on CPUs

    @property
    def feature_width(self) -> int:
        """Return the number of features per image that the Fréchet distance uses."""
        return self.config.coarse_width

    def encode(self, pixels: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch channels 8 8"]:
        """Return the last map. Pixels lie between 0 and 1."""
        maps = 4 * pixels.contiguous(memory_format=torch.channels_last) - 3  # about zero mean, as most pixels are light
        maps = self.middle_stage(self.fine_stage(self.stem(maps)))
        return self.coarse_stage(maps + self.positions)

    def features(self, pixels: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch channels"]:
        """Return the mean of the last map over all positions."""
        return self.encode(pixels).mean(dim=(2, 3))

    def forward(self, pixels: Float[Tensor, "batch 3 64 64"]) -> PlaceLogits:
        maps = self.encode(pixels)
        weights = self.queries(maps).flatten(2).softmax(dim=-1)  # [batch, places, positions]
        outputs = self.head(weights @ maps.flatten(2).transpose(1, 2))
        presence, *attributes, center = outputs.split(self.widths, dim=-1)
        return PlaceLogits(presence.squeeze(-1), dict(zip(ATTRIBUTES, attributes, strict=True)), center)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Judge":
        """Load a judge that `save_pretrained` wrote, in float32. Raises CourseError for anything else."""
        model = cls(JudgeConfig(**read_settings(_SETTINGS, read_config(folder, MODEL_TYPE))))
        load_weights(model, folder, _NAMES)
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`, in the dtype of the weights."""
        config = {"model_type": MODEL_TYPE, **write_settings(_SETTINGS, asdict(self.config))}
        save_pretrained(folder, self, _NAMES, config)
