"""The eye: lesson 1's Vision Transformer as CLIP and SigLIP have it."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_02_clip.model import huggingface
from lessons.lesson_02_clip.model.config import ACTIVATIONS, clip_vision_config
from shared.pretrained import load_weights, save_pretrained
from shared.transformer import Block


class VisionTransformer(VisionTransformer):
    """A Vision Transformer with another activation, a norm before its blocks, and patches projected without a bias.

    `forward` gives one vector an image. Of the tokens, those that went *into* the last block serve best as features
    for a language model (lesson 5): `hidden_states` has them all.
    """

    config: clip_vision_config

    def __init__(self, config: clip_vision_config):
        super().__init__(config)
        if not config.patch_bias:
            self.patch_embedding.project.register_parameter("bias", None)
        self.pre_norm = nn.LayerNorm(config.width, eps=config.norm_eps) if config.pre_norm else None
        if self.attention_pooling is not None:
            self.attention_pooling.mlp.activation = ACTIVATIONS[config.activation]

    @staticmethod
    def _block(config: clip_vision_config, layer: int) -> Block:
        block = VisionTransformer._block(config, layer)
        block.mlp.activation = ACTIVATIONS[config.activation]
        return block

    def encode(
        self, tokens: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "#batch tokens half_head_dim"] | None
    ) -> Float[Tensor, "batch tokens width"]:
        """Every block, then the last norm; here the first norm comes before both."""
        return super().encode(tokens if self.pre_norm is None else self.pre_norm(tokens), angles)

    def hidden_states(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> list[Float[Tensor, "batch tokens width"]]:
        """The tokens as the first block gets them, and as each block leaves them: depth + 1 tensors, none of them normed
        at the end."""
        tokens = self.add_prefix(self.embed_patches(images))
        states = [tokens if self.pre_norm is None else self.pre_norm(tokens)]
        for block in self.blocks:
            states.append(block(states[-1], angles=self._angles_of(images)))
        return states

    @torch.no_grad()
    def attention_maps(
        self, images: Float[Tensor, "batch channels height width_px"]
    ) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """Who looked at whom, one tensor of probabilities a block."""
        states, angles = self.hidden_states(images), self._angles_of(images)
        pairs = zip(self.blocks, states[:-1], strict=True)
        return [block.attention.weights(block.attention_norm(state), angles=angles) for block, state in pairs]

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> "VisionTransformer":
        """A published `CLIPVisionModel` or `SiglipVisionModel` from its folder, in evaluation mode.

        (Out of a folder with both towers: `CLIP.from_pretrained(folder).image_encoder`.)
        Raises CourseError when the folder holds another model, lacks weights or holds too many.
        """
        config = huggingface.read_vision_config(folder)
        tower = cls(config).to(dtype)
        load_weights(tower, folder, huggingface.vision_weight_names(config))
        return tower.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the folder that `transformers` reads. Raises CourseError for a tower that has no published class."""
        config = huggingface.write_vision_config(self.config)
        save_pretrained(folder, self, huggingface.vision_weight_names(self.config), config)
