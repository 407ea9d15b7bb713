"""What must hold to rounding, before anything is trained: two versions of one model, and two ways of writing with it."""

from pathlib import Path
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder import reference
from lessons.lesson_00_foundations.decoder.model import LanguageModel
from shared.torch_conversion import max_abs_difference, to_torch
from shared.transformer import DecoderConfig, Rotary, Sampling, generate

SIZES = reference.Sizes(len(reference.ALPHABET))
PROMPTS = (3, 17, 1, 9, 30)
"""Lengths of the prompts that are continued alone and together."""


class WideRotary(Rotary):
    """Rotary angles in float64. The model's own are float32, as Llama's are: enough for it, not for a comparison to 10⁻⁹."""

    def forward(self, positions: Int[Tensor, "batch tokens axes"]) -> Float[Tensor, "batch tokens half_head_dim"]:
        pairs = torch.arange(0, self.head_dim, 2, dtype=torch.float64)
        return positions.double() * self.base ** (-pairs / self.head_dim)


def twins(sizes: reference.Sizes, seed: int) -> tuple[reference.Decoder, LanguageModel]:
    """The pure-Python decoder and the PyTorch one with the same weights, all drawn anew, in float64."""
    config = DecoderConfig(
        sizes.vocab_size, sizes.width, sizes.depth, sizes.heads, sizes.kv_heads, sizes.mlp_dim,
        rotary_base=sizes.rotary_base, norm_eps=sizes.norm_eps,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LanguageModel(config).double()
    model.rotary = WideRotary(model.rotary.head_dim, base=sizes.rotary_base)
    with torch.no_grad():
        for parameter in model.parameters():
            # At their initial values the norms' gains would hide mistakes.
            parameter.copy_(torch.randn_like(parameter) * 0.4 + (0.6 if parameter.ndim == 1 else 0.0))
    plain = reference.Decoder(sizes, Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model


def reference_differences(sizes: reference.Sizes, seed: int) -> dict[str, float]:
    """The largest differences between the two versions: of any logit, and of any weight's gradient."""
    plain, model = twins(sizes, seed)
    windows = torch.randint(sizes.vocab_size, (2, 12), generator=torch.Generator().manual_seed(seed))
    reference.loss_of(plain, windows.tolist()).backward()
    logits = model(windows[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()

    gradients = plain.parameters()
    return {
        "reference_difference": max_abs_difference(to_torch(plain(windows[:, :-1].tolist())), logits),
        "reference_gradient_difference": max(
            max_abs_difference(gradients[name].grad, parameter.grad) for name, parameter in model.named_parameters()
        ),
    }


def differing_tokens(seed: int, *, new_tokens: int = 40) -> dict[str, int]:
    """How many tokens of greedy texts differ: written with a cache and without, and in a ragged batch and alone.

    In float64, where two likeliest tokens are never so close that the order of an addition decides between them.
    """
    torch.manual_seed(seed)
    config = DecoderConfig(97, 48, 3, 6, 2, 80)
    model = LanguageModel(config).double()
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(config.vocab_size, (length,), generator=generator) for length in PROMPTS]
    together = generate(model, prompts, Sampling(new_tokens))
    recomputed = generate(model, prompts, Sampling(new_tokens), use_cache=False)
    alone = [generate(model, [prompt], Sampling(new_tokens))[0] for prompt in prompts]

    def differing(ones: list[Tensor], others: list[Tensor]) -> int:
        return sum(int((one != other).sum()) for one, other in zip(ones, others, strict=True))

    return {
        "tokens_compared": sum(map(len, together)),
        "cache_differing_tokens": differing(together, recomputed),
        "batch_differing_tokens": differing(together, alone),
    }


def check_decoder(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict:
    """All of it (data, device, folder and resume are not used: nothing is trained)."""
    return reference_differences(SIZES, seed) | differing_tokens(seed)
