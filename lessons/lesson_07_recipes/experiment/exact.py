"""Identities that hold up to rounding before any training: experts, latent attention, upcycling, and contrasts."""

from random import Random

import torch

from lessons.lesson_00_foundations.decoder.model.toy_decoder import load_language_model
from lessons.lesson_07_recipes import reference
from lessons.lesson_07_recipes.experiment.factorial import effect_estimates
from lessons.lesson_07_recipes.experiment.levels import lab_design
from lessons.lesson_07_recipes.model.deepseek import DeepSeekV3
from lessons.lesson_07_recipes.model.deepseek_config import DeepSeekConfig
from lessons.lesson_07_recipes.model.experts_arms import ArmSizes, build_arm
from lessons.lesson_07_recipes.model.experts_balance import balance_loss
from lessons.lesson_07_recipes.model.latent_attention import LatentAttention
from lessons.lesson_07_recipes.model.latent_attention_cache import cache_bytes_per_token, measured_cache_bytes
from lessons.lesson_07_recipes.model.upcycling import upcycle
from shared.attention import Mask
from shared.course.context import RunContext
from shared.stdlib.creation import normal
from shared.torch_conversion import max_abs_difference, to_torch
from shared.transformer import Rotary


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return the largest absolute differences between quantities that must be equal; only the seed is used."""
    torch.manual_seed(context.seed)
    return {
        "absorbed_difference": absorbed_difference(),
        "reference_difference": reference_difference(context.seed),
        "balance_difference": balance_difference(context.seed),
        "upcycled_difference": upcycled_difference(),
        "cache_difference": cache_difference(),
        "contrast_difference": contrast_difference(),
    }


@torch.no_grad()
def absorbed_difference() -> float:
    """Compare a DeepSeek-V3's logits in the plain and the absorbed form, in float64."""
    model = build_arm("sparse latent", ArmSizes(60)).double().eval()
    assert isinstance(model, DeepSeekV3)
    token_ids, logits = torch.randint(60, (2, 12)), []
    for absorbed in (False, True):
        model.absorb(absorbed)
        logits.append(model(token_ids))
    return max_abs_difference(*logits)


@torch.no_grad()
def reference_difference(seed: int) -> float:
    """Compare latent attention in pure Python and in PyTorch with the same weights."""
    width, heads, tokens, dims = 16, 4, 10, (8, 4, 8, 6)
    plain = reference.LatentAttention(width, heads, dims, Random(seed))
    head_dim, rotary_dim, value_dim, latent_dim = dims
    config = DeepSeekConfig(
        *(1, width, 1, heads, heads, 1),
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        value_dim=value_dim,
        latent_dim=latent_dim,
        query_latent_dim=None,
        interleaved=False,
        dense_layers=1,
    )
    attention = LatentAttention(config).double()
    names = {"query.weight": plain.query.weight, "down.weight": plain.down, "up.weight": plain.up}
    names |= {"latent_norm.weight": plain.latent_norm, "output.weight": plain.output.weight}
    for name, weight in names.items():
        attention.get_parameter(name).copy_(to_torch(weight))
    x = normal((1, tokens, width), 1.0, Random(seed + 1))
    angles = Rotary(rotary_dim, base=10_000.0)(torch.arange(tokens)[None, :, None])
    expected = attention(to_torch(x), mask=Mask(causal=True), angles=angles)
    return max_abs_difference(to_torch(plain(x)), expected)


def balance_difference(seed: int) -> float:
    """Compare the load-balancing loss in pure Python and in PyTorch.

    PyTorch divides the counts in float32. For 16 tokens the fractions are exact there, so that all of the comparison
    has the precision of float64.
    """
    logits = normal((16, 6), 1.0, Random(seed))
    _, indices = reference.choose_experts(logits, 2)
    expected = balance_loss(to_torch(logits).softmax(-1), torch.tensor(indices))
    return abs(reference.balance_loss(logits, indices).item() - expected.item())


@torch.no_grad()
def upcycled_difference() -> float:
    """Compare the logits of lesson 0's decoder and of the sparse decoder that is made from it."""
    decoder, tokenizer = load_language_model()
    token_ids = torch.randint(tokenizer.vocab_size, (2, 20))
    return max_abs_difference(upcycle(decoder.double(), 4, 2).double()(token_ids), decoder(token_ids))


@torch.no_grad()
def cache_difference() -> float:
    """Compare the computed bytes of the cache per token with those that its tensors occupy, for every attention."""
    differences, token_ids = [], torch.randint(60, (3, 7))
    for name in ("dense", "grouped", "latent"):
        model = build_arm(name, ArmSizes(60)).eval()
        cache = model.new_cache(*token_ids.shape)
        model.hidden_states(token_ids, cache=cache)
        measured = measured_cache_bytes(cache, model.config.depth) / token_ids.numel()
        differences.append(abs(measured - cache_bytes_per_token(model.config, torch.float32)))
    return max(differences)


def contrast_difference() -> float:
    """Compare the effects from contrasts with twice the coefficients of a least-squares fit, on random scores."""
    differences = []
    for runs in (8, 16):
        design = lab_design(runs)
        columns, scores = design.columns(design.effects), torch.randn(runs, 3, dtype=torch.float64)
        terms = torch.cat([torch.ones(runs, 1, dtype=torch.float64), columns], dim=1)
        coefficients = torch.linalg.lstsq(terms, scores).solution
        differences.append(max_abs_difference(2 * coefficients[1:], effect_estimates(columns, scores)))
    return max(differences)
