"""Small untrained models and random data that the tests of lesson 3 share."""

import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer, VisionTransformerConfig
from lessons.lesson_03_blip2.model import QFormerConfig, Retriever, RetrieverConfig
from shared.transformer import DecoderConfig

SIZES = {"width": 24, "depth": 4, "heads": 3, "mlp_dim": 28, "context_width": 20}
WITH_TEXT = QFormerConfig(**SIZES, text_input=True)
WITHOUT_TEXT = QFormerConfig(**SIZES)
VOCAB_SIZE = 31


def vision_encoder():
    return VisionTransformer(
        VisionTransformerConfig(image_size=12, patch_size=3, width=20, depth=1, heads=5, mlp_dim=28)
    )


def retriever(**changes):
    sizes = {"queries": 5, "vocab_size": VOCAB_SIZE, "max_text_tokens": 9, "projection_dim": 11} | changes
    return Retriever(RetrieverConfig(WITH_TEXT, **sizes), vision_encoder()).eval()


def language_model():
    return LanguageModel(DecoderConfig(VOCAB_SIZE, 16, 2, 4, 2, 20)).eval()


def pairs(count=4):
    features = torch.randn(count, 7, 20)
    tokens = torch.randint(0, VOCAB_SIZE, (count, 6))
    segments = torch.where(torch.arange(6) < torch.tensor([6, 4, 2, 5])[:count, None], 0, -1)
    return features, tokens, segments
