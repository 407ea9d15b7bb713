"""The plain way to join an eye and a language model: the whole picture as one vector, CLIP's own embedding of it.

    picture ─► CLIP's image tower ─► pooled, projected [1, 512] ─► MLP 512 → 896 ─► one token among the words

It is what CLIP compares with captions, so it tells what a picture is *about*; how many things there are, and where, CLIP was
never asked to keep. LLaVA shows the patches instead, each as a token: 49 of them for ViT-B/32.
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

KIND = "llava_embedding"
EMBEDDING = "visual_projection.weight"


class EmbeddingLlava(Llava):
    """A `Llava` whose picture is one token.

    image_projection  CLIP's own, from the pooled class token to the space in which pictures and captions meet; as frozen
                      as the eye
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
        """CLIP's embedding, its length left as it is: to the projector a short vector would be a faint one."""
        return self.image_projection(self.vision_encoder(pixels))[:, None]

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "EmbeddingLlava":
        """What `save_pretrained` wrote, to evaluate. Raises CourseError when the folder holds another model."""
        config = config_mapping.read_llava_config(folder, KIND)
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
        pretrained.load_weights(model, folder, _table(model))
        return model.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a folder like a published LLaVA's, with CLIP's projection as CLIP names it. (No published class reads it.)"""
        vision = config_mapping.require_clip_vision(self.vision_encoder)
        written = config_mapping.write_llava_config("llava", vision, self) | {
            "model_type": KIND,
            "architectures": [type(self).__name__],
            "projection_dim": self.image_projection.out_features,
            "image_seq_length": 1,
        }
        pretrained.save_pretrained(folder, self, _table(self), written)


def _table(model: EmbeddingLlava) -> WeightNames:
    """A LLaVA's names, and one more."""
    names = config_mapping.weight_names(model.vision_encoder.config, model.language_model.config)
    return WeightNames(
        [*names.rules, Rename(EMBEDDING, "image_projection.weight")], ties=names.ties, ignore=names.ignore
    )
