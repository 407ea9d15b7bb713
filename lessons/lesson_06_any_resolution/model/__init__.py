"""NaViT and SigLIP 2 NaFlex in PyTorch; read the files in this order.

config.py          settings of the encoders
resize.py          the grid of patches for an image's aspect ratio and token budget
patches.py         image → patches with coordinates; token dropping
packing.py         bin packing, segments, and the batch of padded or packed rows
positions.py       a learned grid that is resized, and factorized tables
pooling.py         one vector per image
encoder.py         the whole encoder, built on shared.transformer
dual_encoder.py    SigLIP 2: image encoder, text encoder and their common space
preprocessing.py   photographs → patches, as the published image processor computes them
config_mapping.py, weight_names.py   settings and weight names of published checkpoints

Tiles of a fixed size, the other way to encode any resolution, are lesson 5's `model/anyres.py`.
"""

from lessons.lesson_06_any_resolution.model.config import NaViTConfig, SigLIP2Config, siglip2_vision_config
from lessons.lesson_06_any_resolution.model.dual_encoder import SigLIP2
from lessons.lesson_06_any_resolution.model.encoder import NaViT
from lessons.lesson_06_any_resolution.model.packing import PatchBatch, assign_rows, pack, packing_efficiency, pad
from lessons.lesson_06_any_resolution.model.patches import ImagePatches, drop_tokens, sample_drop_rates
from lessons.lesson_06_any_resolution.model.preprocessing import NaFlexPreprocessing
from lessons.lesson_06_any_resolution.model.resize import budget_grid, budget_grids

__all__ = [
    "ImagePatches",
    "NaFlexPreprocessing",
    "NaViT",
    "NaViTConfig",
    "PatchBatch",
    "SigLIP2",
    "SigLIP2Config",
    "assign_rows",
    "budget_grid",
    "budget_grids",
    "drop_tokens",
    "pack",
    "packing_efficiency",
    "pad",
    "sample_drop_rates",
    "siglip2_vision_config",
]
