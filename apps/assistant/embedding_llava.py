"""A LLaVA whose image is one token: CLIP's own embedding of the image instead of its patches.

    image ─► CLIP's image encoder ─► pooled, projected [1, 512] ─► MLP 512 → 896 ─► one token in the text

CLIP compares this embedding with captions, so it describes what an image is *about*; CLIP's loss does not require it to
encode counts and positions. LLaVA uses the patches instead, one token each: 49 for ViT-B/32.
"""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_05_llava.model import Llava, Projector, config_mapping
from shared import pretrained
from shared.errors import CourseError
from shared.pretrained import Rename, WeightNames
from shared.transformer import Decoder

MODEL_TYPE = "llava_embedding"
PROJECTION_NAME = "visual_projection.weight"


class EmbeddingLlava(Llava):
    """A `Llava` whose image features are CLIP's embedding.

    image_projection  CLIP's, from the pooled class token to the space that images and captions share; frozen
    """

    def __init__(
        self,
        vision_encoder: VisionTransformer,
        image_projection: nn.Linear,
        projector: nn.Module,
        language_model: Decoder,
        *,
        image_token_id: int,
    ):
        super().__init__(vision_encoder, projector, language_model, image_token_id=image_token_id)
        self.image_projection = image_projection

    def image_features(
        self, pixels: Float[Tensor, "images channels height width_px"]
    ) -> Float[Tensor, "images 1 embedding"]:
        """Return CLIP's embedding without its normalization to length 1, which would shrink the projector's input."""
        return self.image_projection(self.vision_encoder(pixels))[:, None]

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "EmbeddingLlava":
        """Load what `save_pretrained` wrote, in evaluation mode. Raises CourseError for another type of model."""
        config = config_mapping.read_llava_config(folder, MODEL_TYPE)
        width = pretrained.read_config(folder).get("projection_dim")
        if not isinstance(width, int) or width < 1:
            raise CourseError(
                f"{folder}/config.json has projection_dim {width!r}; expected the width of CLIP's embedding"
            )
        model = cls(
            VisionTransformer(config.vision_encoder),
            nn.Linear(config.vision_encoder.width, width, bias=False),
            Projector(width, config.language_model.width, bias=config.projector_bias),
            LanguageModel(config.language_model),
            image_token_id=config.choices["image_token_id"],
        )
        pretrained.load_weights(model, folder, _weight_names(model))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder in LLaVA's layout, with CLIP's projection under CLIP's name. No published class reads it."""
        config = config_mapping.write_llava_config("llava", self.published_config()) | {
            "model_type": MODEL_TYPE,
            "architectures": [type(self).__name__],
            "projection_dim": self.image_projection.out_features,
            "image_seq_length": 1,
        }
        pretrained.save_pretrained(folder, self, _weight_names(self), config)


def _weight_names(model: EmbeddingLlava) -> WeightNames:
    """Return LLaVA's names and the projection's."""
    names = config_mapping.weight_names(model.vision_encoder.config, model.language_model.config)
    projection = Rename(PROJECTION_NAME, "image_projection.weight")
    return WeightNames([*names.rules, projection], ties=names.ties, ignore=names.ignore)
