"""A small decoder and its names in `transformers`, for the tests of adapters."""

from dataclasses import replace

import torch
from torch import nn

from shared.finetuning import find_adapters
from shared.pretrained import Rename, Tie, WeightNames, with_prefix
from shared.transformer import Decoder, DecoderConfig

CONFIG = DecoderConfig(vocab_size=31, width=24, depth=2, heads=4, kv_heads=2, mlp_dim=40)
BLOCK = [
    Rename("input_layernorm.weight", "attention_norm.weight"),
    Rename("self_attn.q_proj.weight", "attention.query.weight"),
    Rename("self_attn.k_proj.weight", "attention.key.weight"),
    Rename("self_attn.v_proj.weight", "attention.value.weight"),
    Rename("self_attn.o_proj.weight", "attention.output.weight"),
    Rename("post_attention_layernorm.weight", "mlp_norm.weight"),
    Rename("mlp.gate_proj.weight", "mlp.gate.weight"),
    Rename("mlp.up_proj.weight", "mlp.up.weight"),
    Rename("mlp.down_proj.weight", "mlp.down.weight"),
]
SHARED_RULES = [
    Rename("model.embed_tokens.weight", "embedding.weight"),
    *with_prefix("model.layers.{n}.", "blocks.{n}.", BLOCK),
    Rename("model.norm.weight", "norm.weight"),
]
NAMES = WeightNames([*SHARED_RULES, Rename("lm_head.weight", "output.weight")])
TIED_NAMES = WeightNames(SHARED_RULES, ties=[Tie("lm_head.weight", "model.embed_tokens.weight")])


def decoder(seed: int = 0, *, tied: bool = False) -> Decoder:
    """Return a decoder with all weights drawn at random, including the norms' gains."""
    torch.manual_seed(seed)
    return randomize(Decoder(replace(CONFIG, tied=tied)))


def published_llama(*, tied: bool = False) -> nn.Module:
    """Return the published class of the decoder's sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=CONFIG.vocab_size,
        hidden_size=CONFIG.width,
        num_hidden_layers=CONFIG.depth,
        num_attention_heads=CONFIG.heads,
        num_key_value_heads=CONFIG.kv_heads,
        intermediate_size=CONFIG.mlp_dim,
        rms_norm_eps=CONFIG.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": CONFIG.rotary_base},
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def randomize(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def draw_adapters(model: nn.Module, seed: int = 1) -> None:
    """Draw the weights of every adapter, whose updates start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for adapter in find_adapters(model).values():
            for name, parameter in adapter.named_parameters():
                if not name.startswith("base."):
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def tokens() -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, (2, 9), generator=torch.Generator().manual_seed(5))
