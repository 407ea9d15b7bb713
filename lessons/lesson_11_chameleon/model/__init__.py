"""Chameleon in PyTorch. Read the files in this order:

quantizer.py          vector quantization: nearest codes, straight-through gradient, codebook learning, restarts
fsq.py                finite scalar quantization, with the same interface
residual_block.py     the convolutional block of both image tokenizers
image_tokenizer.py    encoder, quantizer and decoder: images ↔ codes
perceptual_loss.py    distance of images in the features of a frozen encoder
discriminator.py      patch discriminator, hinge loss, adaptive weight
config.py             settings of the decoder and of the image tokenizer
vq_encoder.py         the published image tokenizer: an image → a grid of codes
vocabulary.py         codes as tokens of one vocabulary
head_norm.py          QK-norm, and the bound of attention logits
block.py              the decoder's block: norms before or after its parts
losses.py             cross-entropy and z-loss
stability.py          the largest attention logits, output logits and hidden states
chameleon.py          the whole model
generation.py         text and complete images: constrained decoding
toy_chameleon.py      the small model of this lesson: text tokens, codes, and both tokenizers
config_mapping.py, weight_names.py   settings and weights as published
"""

from lessons.lesson_11_chameleon.model.block import chameleon_block, chameleon_decoder, residual_bounds
from lessons.lesson_11_chameleon.model.chameleon import Chameleon
from lessons.lesson_11_chameleon.model.config import BlockDesign, ChameleonConfig, VQConfig
from lessons.lesson_11_chameleon.model.generation import ImageSpans, Span, TextOnly, generate_mixed, split_spans
from lessons.lesson_11_chameleon.model.head_norm import HeadNorm, logit_bounds
from lessons.lesson_11_chameleon.model.losses import Z_WEIGHT, mixed_modal_loss
from lessons.lesson_11_chameleon.model.stability import Magnitudes, measure_magnitudes
from lessons.lesson_11_chameleon.model.vocabulary import ImageVocabulary, add_image_names, splice_codes
from lessons.lesson_11_chameleon.model.vq_encoder import VQEncoder

__all__ = [
    "Z_WEIGHT",
    "BlockDesign",
    "Chameleon",
    "ChameleonConfig",
    "HeadNorm",
    "ImageSpans",
    "ImageVocabulary",
    "Magnitudes",
    "Span",
    "TextOnly",
    "VQConfig",
    "VQEncoder",
    "add_image_names",
    "chameleon_block",
    "chameleon_decoder",
    "generate_mixed",
    "logit_bounds",
    "measure_magnitudes",
    "mixed_modal_loss",
    "residual_bounds",
    "splice_codes",
    "split_spans",
]
