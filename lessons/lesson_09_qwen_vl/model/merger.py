"""The merger: 2 × 2 neighboring patches become one token of the language model (arXiv:2409.12191, section 2.1)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_09_qwen_vl.model.config import VisionConfig
from shared.transformer import RMSNorm

NORM_EPS = 1e-6


def concatenate_patches(
    patches: Float[Tensor, "patches width"], patches_per_token: int
) -> Float[Tensor, "tokens merged_width"]:
    """Concatenate the vectors of the patches of each token, which follow each other in merge order."""
    # exercise 9.8: merge patches
    return patches.reshape(-1, patches_per_token * patches.shape[-1])
    # end exercise


class Merger(nn.Module):
    """Norm, concatenation, and a two-layer MLP with GELU: [patches, width] → [tokens, output_width].

    norm_after_merge  whether the norm sees the concatenated vectors (the mergers of DeepStack) or each patch's vector
    """

    def __init__(self, config: VisionConfig, *, norm_after_merge: bool = False):
        super().__init__()
        self.patches_per_token = config.merge_size**2
        merged_width = config.width * self.patches_per_token
        self.norm_after_merge = norm_after_merge
        self.norm = vision_norm(config, merged_width if norm_after_merge else config.width)
        self.up = nn.Linear(merged_width, merged_width)
        self.down = nn.Linear(merged_width, config.output_width)

    def forward(self, patches: Float[Tensor, "patches width"]) -> Float[Tensor, "tokens output_width"]:
        if self.norm_after_merge:
            merged = self.norm(concatenate_patches(patches, self.patches_per_token))
        else:
            merged = concatenate_patches(self.norm(patches), self.patches_per_token)
        return self.down(F.gelu(self.up(merged)))


def vision_norm(config: VisionConfig, width: int) -> nn.Module:
    """Build a norm of the vision encoder."""
    return RMSNorm(width, NORM_EPS) if config.norm == "rms" else nn.LayerNorm(width, NORM_EPS)
