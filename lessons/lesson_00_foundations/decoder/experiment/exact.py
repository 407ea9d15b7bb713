"""Exact checks of the part `decoder`, before any training.

Pure Python equals PyTorch, and neither the KV cache nor batching changes generated tokens.
"""

from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder import reference
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.course.context import RunContext
from shared.torch_conversion import max_abs_difference, to_torch
from shared.transformer import DecoderConfig, Rotary, Sampling, generate

SIZES = reference.Sizes(len(reference.ALPHABET))
PROMPT_LENGTHS = (3, 17, 1, 9, 30)


class DoubleRotary(Rotary):
    """Compute rotary angles in float64; the model's float32 angles are too coarse for a comparison to 10⁻⁹."""

    def forward(self, positions: Int[Tensor, "batch tokens axes"]) -> Float[Tensor, "batch tokens half_head_dim"]:
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float64)
        return positions.double() * self.base ** (-pairs / self.head_dim)


def check_decoder(context: RunContext) -> dict:
    """Return the largest differences between computations that must agree."""
    return reference_differences(SIZES, context.seed) | differing_tokens(context.seed)


def equal_models(sizes: reference.Sizes, seed: int) -> tuple[reference.Decoder, LanguageModel]:
    """Return the pure-Python and the PyTorch decoder with equal random weights, in float64."""
    config = DecoderConfig(
        sizes.vocab_size,
        sizes.width,
        sizes.depth,
        sizes.heads,
        sizes.kv_heads,
        sizes.mlp_dim,
        rotary_base=sizes.rotary_base,
        norm_eps=sizes.norm_eps,
    )
    torch.manual_seed(seed)
    model = LanguageModel(config).double()
    model.rotary = DoubleRotary(model.rotary.head_dim, base=sizes.rotary_base)
    with torch.no_grad():
        for parameter in model.parameters():
            # With their initial value of 1 the norms' gains would hide errors.
            parameter.copy_(torch.randn_like(parameter) * 0.4 + (0.6 if parameter.ndim == 1 else 0.0))
    plain_model = reference.Decoder(sizes, Random(seed))
    plain_model.load_parameters({name: weight.flatten().tolist() for name, weight in model.named_parameters()})
    return plain_model, model


def reference_differences(sizes: reference.Sizes, seed: int) -> dict[str, float]:
    """Return the largest difference of any logit, and of any weight's gradient, between the two versions."""
    plain_model, model = equal_models(sizes, seed)
    windows = torch.randint(sizes.vocab_size, (2, 12), generator=torch.Generator().manual_seed(seed))
    reference.next_letter_loss(plain_model, windows.tolist()).backward()
    logits = model(windows[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()

    plain_weights = plain_model.parameters()
    return {
        "reference_difference": max_abs_difference(to_torch(plain_model(windows[:, :-1].tolist())), logits),
        "reference_gradient_difference": max(
            max_abs_difference(plain_weights[name].grad, weight.grad) for name, weight in model.named_parameters()
        ),
    }


def differing_tokens(seed: int, *, new_tokens: int = 40) -> dict[str, int]:
    """Count tokens of greedy texts that differ with and without a cache, and in a ragged batch and alone.

    In float64 the two most likely tokens are never so close that the order of a summation decides between them.
    """
    torch.manual_seed(seed)
    config = DecoderConfig(97, 48, 3, 6, 2, 80)
    model = LanguageModel(config).double()
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(config.vocab_size, (length,), generator=generator) for length in PROMPT_LENGTHS]
    sampling = Sampling(new_tokens)
    batched = generate(model, prompts, sampling)
    recomputed = generate(model, prompts, sampling, use_cache=False)
    alone = [generate(model, [prompt], sampling)[0] for prompt in prompts]

    def differing(texts: list[Tensor], others: list[Tensor]) -> int:
        return sum(int((text != other).sum()) for text, other in zip(texts, others, strict=True))

    return {
        "tokens_compared": sum(map(len, batched)),
        "cache_differing_tokens": differing(batched, recomputed),
        "batch_differing_tokens": differing(batched, alone),
    }
