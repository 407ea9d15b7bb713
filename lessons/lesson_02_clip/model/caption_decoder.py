"""A text decoder that reads the patch features of an image: a captioning loss beside the contrastive one.

CLIP compares one vector per image with one vector per caption. Its loss does not require that a patch feature encodes
where an object is. A decoder that describes the image, or the object at a given patch, does require it. LocCa
(arXiv:2403.19596, section 3) and SigLIP 2 (arXiv:2502.14786, section 2.2) train such a decoder with the image encoder
and drop it afterward.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_02_clip.model.dual_encoder import CLIP, unit_vectors
from shared.attention import Mask
from shared.transformer import MLP, Attention


@dataclass(frozen=True)
class CaptionDecoderConfig:
    """Describe the decoder.

    image_width     width of the patch features
    context_length  greatest number of tokens per text
    """

    vocab_size: int
    context_length: int
    image_width: int
    width: int = 512
    depth: int = 6
    heads: int = 8
    mlp_dim: int = 2048


class CaptionDecoderBlock(nn.Module):
    """Self-attention among a text's tokens, cross-attention to the image's patches, an MLP; each with its residual."""

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__()
        self.self_norm = nn.LayerNorm(config.width)
        self.self_attention = Attention(config.width, config.heads)
        self.cross_norm = nn.LayerNorm(config.width)
        self.cross_attention = Attention(config.width, config.heads, context_width=config.image_width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config.width, config.mlp_dim)

    def forward(
        self,
        x: Float[Tensor, "images tokens width"],
        patches: Float[Tensor, "images patches image_width"],
        mask: Mask,
    ) -> Float[Tensor, "images tokens width"]:
        x = x + self.self_attention(self.self_norm(x), mask=mask)
        x = x + self.cross_attention(self.cross_norm(x), patches)
        return x + self.mlp(self.mlp_norm(x))


class CaptionDecoder(nn.Module):
    """Predict the next token of texts about an image from its patch features and the text's earlier tokens.

    A row holds several texts about one image, one after another, each its own segment: no text attends to another, and
    all of them attend to the same patches, which are encoded once.
    """

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.context_length, config.width))
        self.image_norm = nn.LayerNorm(config.image_width)
        self.blocks = nn.ModuleList(CaptionDecoderBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        for weight in (self.embedding.weight, self.positions):
            nn.init.normal_(weight, std=config.width**-0.5)

    def forward(
        self,
        patches: Float[Tensor, "images patches image_width"],
        token_ids: Int[Tensor, "images tokens"],
        segments: Int[Tensor, "images tokens"],
    ) -> Float[Tensor, "images tokens vocab"]:
        """Return the logits of each next token.

        segments  number of the text that a token belongs to; −1 for padding
        """
        x = self.embedding(token_ids) + self.positions[positions_in_segments(segments)]
        mask = Mask(causal=True, segment_q=segments, segment_k=segments)
        patches = self.image_norm(patches)
        for block in self.blocks:
            x = block(x, patches, mask)
        return self.norm(x) @ self.embedding.weight.T


class CaptioningCLIP(nn.Module):
    """CLIP with a caption decoder on its patch features; the decoder serves training only.

    The decoder reads the hidden state before the image encoder's last block, the features that LLaVA uses
    (arXiv:2304.08485, section 4.1). The last block and the class token serve the contrastive loss.
    """

    def __init__(self, clip: CLIP, decoder: CaptionDecoder, *, feature_layer: int = -2):
        super().__init__()
        self.clip = clip
        self.decoder = decoder
        self.feature_layer = feature_layer

    def forward(
        self,
        images: Float[Tensor, "images channels height width_px"],
        token_ids: Int[Tensor, "images tokens"],
        segments: Int[Tensor, "images tokens"],
    ) -> tuple[Float[Tensor, "images embedding"], Float[Tensor, "images tokens vocab"]]:
        """Return each image's unit vector, and the decoder's logits for the texts about it; the images run once."""
        encoder = self.clip.image_encoder
        states = encoder.hidden_states(images)
        vectors = unit_vectors(self.clip.image_projection(encoder.pool(encoder.norm(states[-1]))))
        patches = states[self.feature_layer][:, encoder.config.prefix_tokens :]
        return vectors, self.decoder(patches, token_ids, segments)


def positions_in_segments(segments: Int[Tensor, "rows tokens"]) -> Int[Tensor, "rows tokens"]:
    """Return each token's position in its own text: segments 0 0 0 1 1 give positions 0 1 2 0 1."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - torch.where(begins, index, 0).cummax(dim=1).values


def captioning_loss(
    logits: Float[Tensor, "images tokens vocab"],
    token_ids: Int[Tensor, "images tokens"],
    segments: Int[Tensor, "images tokens"],
    loss_mask: Bool[Tensor, "images tokens"],
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy, in nats, of the tokens in `loss_mask` that have a previous token in their text."""
    predicted = loss_mask[:, 1:] & (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    return F.cross_entropy(logits[:, :-1][predicted], token_ids[:, 1:][predicted])
