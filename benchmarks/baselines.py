"""The models that the course's models are compared with: the same configurations in `transformers` and in PyTorch."""

import torch
from torch import Tensor, nn

from lessons.lesson_01_vit.model import VisionTransformerConfig
from shared.transformer import DecoderConfig


class TorchVisionTransformer(nn.Module):
    """A Vision Transformer with PyTorch's own `nn.TransformerEncoder`."""

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            config.mlp_dim,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=config.norm_eps,
            batch_first=True,
            norm_first=True,
        )
        self.patches = nn.Conv2d(config.channels, config.width, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.grid[0] * config.grid[1], config.width))
        norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.encoder = nn.TransformerEncoder(layer, config.depth, norm, enable_nested_tensor=False)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        return self.head(self.encoder(tokens)[:, 0])


class HuggingFaceVisionTransformer(nn.Module):
    """The Vision Transformer of `transformers`, which uses PyTorch's fused attention."""

    def __init__(self, config: VisionTransformerConfig):
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        self.model = ViTForImageClassification(
            ViTConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_channels=config.channels,
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                intermediate_size=config.mlp_dim,
                layer_norm_eps=config.norm_eps,
                num_labels=config.classes,
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


class HuggingFaceDecoder(nn.Module):
    """The Llama decoder of `transformers`, with PyTorch's fused attention."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.width,
                intermediate_size=config.mlp_dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                num_key_value_heads=config.kv_heads,
                rms_norm_eps=config.norm_eps,
                tie_word_embeddings=config.tied,
                attn_implementation="sdpa",
                use_cache=False,
            )
        )

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.model(token_ids).logits
