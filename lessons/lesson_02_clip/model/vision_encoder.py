"""Read and write published image encoders of CLIP and SigLIP; the model itself is lesson 1's Vision Transformer.

`clip_vision_config` and `siglip_vision_config` (config.py) hold what differs from lesson 1's defaults: activation, a
norm before the first block, no bias in the patch embedding, attention pooling.
"""

from pathlib import Path

import torch

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import config_mapping
from lessons.lesson_02_clip.model.weight_names import vision_weight_names
from shared.pretrained import load_weights, save_pretrained


def read_vision_encoder(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> VisionTransformer:
    """Load a published `CLIPVisionModel` or `SiglipVisionModel` from its folder, in evaluation mode.

    For a folder with both encoders, use `CLIP.from_pretrained(folder).image_encoder`.
    Raises CourseError when the folder holds another model, or its weights do not match the config.
    """
    config = config_mapping.read_vision_config(folder)
    model = VisionTransformer(config).to(dtype)
    load_weights(model, folder, vision_weight_names(config))
    return model.eval()


def write_vision_encoder(model: VisionTransformer, folder: Path | str) -> None:
    """Write the folder that `transformers` reads. Raises CourseError for a model that has no published class."""
    settings = config_mapping.write_vision_config(model.config)
    save_pretrained(folder, model, vision_weight_names(model.config), settings)
