"""Names of the weights in published files of SigLIP 2: the image encoder alone, and both encoders."""

from lessons.lesson_02_clip.model.weight_names import ATTENTION_POOLING, BLOCK, TEXT
from shared.pretrained import Rearrange, Rename, Rule, WeightNames, with_prefix

VISION: list[Rule] = [
    # A linear layer over patches whose pixels are channel last, as ours; SigLIP stores a convolution's kernel.
    Rename("embeddings.patch_embedding.{leaf}", "patch_embedding.{leaf}"),
    Rename("embeddings.position_embedding.weight", "positions.weight"),
    *with_prefix("encoder.layers.{n}.", "blocks.{n}.", BLOCK),
    Rename("post_layernorm.{leaf}", "norm.{leaf}"),
    *ATTENTION_POOLING,
]


def vision_weight_names() -> WeightNames:
    """Return the names of `Siglip2VisionModel`.

    Published files have the prefix `vision_model.`, which version 5 of transformers omits.
    """
    return WeightNames(with_prefix("vision_model.", "", VISION), also_read=VISION)


def siglip2_weight_names() -> WeightNames:
    """Return the names of `Siglip2Model`."""
    return WeightNames(
        [
            *with_prefix("vision_model.", "image_encoder.", VISION),
            *with_prefix("text_model.", "text_encoder.", TEXT),
            Rename("text_model.head.{leaf}", "text_projection.{leaf}"),
            Rename("logit_scale", "log_scale", Rearrange("1 -> ")),
            Rename("logit_bias", "logit_bias", Rearrange("1 -> ")),
        ]
    )
