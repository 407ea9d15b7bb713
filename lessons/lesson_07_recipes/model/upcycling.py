"""Sparse upcycling: turn a trained dense decoder into a Mixtral by copying each MLP into every expert.

Training a sparse model need not start from nothing (arXiv:2212.05055, section 3). CuMo starts the experts of a
vision-language model in this way (arXiv:2405.05949, section 3).
"""

from dataclasses import fields

import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.experts import SparseMLP
from lessons.lesson_07_recipes.model.mixtral import Mixtral
from lessons.lesson_07_recipes.model.mixtral_config import MixtralConfig
from shared.transformer import DecoderConfig, SwiGLU


def upcycled_config(config: DecoderConfig, experts: int, chosen: int) -> MixtralConfig:
    """Return the config of a Mixtral whose experts have the size of the decoder's MLP."""
    values = {field.name: getattr(config, field.name) for field in fields(DecoderConfig)}
    return MixtralConfig(**values, experts=experts, experts_per_token=chosen)


@torch.no_grad()
def upcycle(decoder: LanguageModel, experts: int, chosen: int) -> Mixtral:
    """Return a Mixtral that computes the same function as a dense decoder before further training.

    All experts are copies of the block's MLP, and the weights of the chosen ones add up to 1, so that the choice does
    not matter yet. The routers are random; their different choices make the experts differ in training.

    Raises ValueError for a decoder without SwiGLU, and as `MixtralConfig` does.
    """
    sparse = Mixtral(upcycled_config(decoder.config, experts, chosen))
    weights = decoder.state_dict()
    for name, tensor in sparse.state_dict().items():
        if name in weights:
            tensor.copy_(weights[name])
    for block, dense_block in zip(sparse.blocks, decoder.blocks, strict=True):
        mlp, dense = block.mlp, dense_block.mlp
        if not isinstance(dense, SwiGLU) or not isinstance(mlp, SparseMLP):
            raise ValueError(f"a {type(dense).__name__} is not copied into experts; give a decoder with SwiGLU")
        mlp.experts.gate.copy_(dense.gate.weight.expand(experts, -1, -1))
        mlp.experts.up.copy_(dense.up.weight.expand(experts, -1, -1))
        mlp.experts.down.copy_(dense.down.weight.expand(experts, -1, -1))
    return sparse
