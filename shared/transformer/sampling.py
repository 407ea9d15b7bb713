"""The choice of the next token: greedy, temperature, top-k and top-p (nucleus) sampling."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MIN_TEMPERATURE = 1e-5
"""A lower temperature counts as 0: the sampled token would differ only where two logits are nearly equal."""

Generators = torch.Generator | Sequence[torch.Generator]
"""One random generator for the whole batch, or one per prompt."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when a text ends.

    max_new_tokens  largest number of tokens to generate
    temperature     0 takes the most likely token, as does any value below MIN_TEMPERATURE; 1 samples from the model's
                    own distribution
    top_k           sample among the k most likely tokens only
    top_p           sample among the smallest set of most likely tokens whose probabilities add up to p
                    (nucleus sampling, arXiv:1904.09751, section 3.1)
    stop_token_ids  a text ends with the first of these tokens

    `max_new_tokens`, `temperature` and `top_p` are one value for all prompts, or a sequence with one per prompt.
    Raises ValueError when a value is out of range.
    """

    max_new_tokens: int | Sequence[int]
    temperature: float | Sequence[float] = 0.0
    top_k: int | None = None
    top_p: float | Sequence[float | None] | None = None
    stop_token_ids: Collection[int] = ()

    def __post_init__(self):
        for length in per_prompt(self.max_new_tokens, 1):
            if length < 1:
                raise ValueError(f"max_new_tokens is {length}; expected at least 1")
        _check(self.temperature, self.top_k, self.top_p)


@runtime_checkable
class Constraint(Protocol):
    """Which tokens each text of a batch may continue with; it follows the texts token by token."""

    def allowed(self) -> Bool[Tensor, "batch vocab"]:
        """Return whether each token may come next, per text."""

    def advance(self, token_ids: Int[Tensor, "batch"]) -> None:
        """Append one token to each text."""


Choose = Callable[[Tensor], Tensor]
"""From logits [batch, vocab] to one token id per row."""


def constrained(choose: Choose, constraint: Constraint) -> Choose:
    """Return a function that chooses among the allowed tokens, and then tells the constraint what was chosen.

    The probabilities of the allowed tokens keep their ratios. Raises ValueError when no token of a row is allowed.
    """

    def choose_allowed(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, "batch"]:
        allowed = constraint.allowed()
        if not allowed.any(dim=-1).all():
            raise ValueError("the constraint excludes every token of a text; it must allow at least one")
        token_ids = choose(logits.masked_fill(~allowed.to(logits.device), -torch.inf))
        constraint.advance(token_ids)
        return token_ids

    return choose_allowed


def seeded_generator(seed: int | None) -> torch.Generator:
    """Return a generator for one prompt; without a seed, its numbers differ at every call. Any integer is a seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed % 2**63)
    return generator


def sample(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
    generator: Generators | None = None,
) -> Int[Tensor, "batch"]:
    """Choose one token id per row: a uniform random number selects a place in the cumulative probabilities.

    The number is drawn on the CPU, so that the same seed gives the same text on every device.
    Settings and errors are those of `Sampling`.
    """
    _check(temperature, top_k, top_p)
    batch = logits.shape[0]
    if not any(_is_random(each) for each in per_prompt(temperature, batch)):
        return logits.argmax(-1)
    probabilities = token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
    if generator is None or isinstance(generator, torch.Generator):
        uniform = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
    else:
        uniform = torch.stack([torch.rand(1, generator=each, dtype=torch.float64) for each in generator])
    cumulative = ranked.double().cumsum(-1)
    place = torch.searchsorted(cumulative, uniform.to(logits.device) * cumulative[:, -1:])
    return order.gather(-1, place).squeeze(-1)


def token_probabilities(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
) -> Float[Tensor, "batch vocab"]:
    """Return the probabilities that tokens are sampled from: scaled by temperature, truncated, renormalized to 1.

    A row of temperature 0 gives its most likely token all probability. Settings and errors are those of `Sampling`.
    """
    _check(temperature, top_k, top_p)
    batch, device = logits.shape[0], logits.device
    temperatures = per_prompt(temperature, batch)
    greedy = torch.tensor([not _is_random(each) for each in temperatures], device=device)[:, None]
    most_likely = logits.argmax(-1, keepdim=True)
    # Rows of temperature 0 are replaced at the end; here they only need a divisor that is not 0.
    divisors = torch.tensor([each if _is_random(each) else 1.0 for each in temperatures], device=device)
    logits = logits.float() / divisors[:, None]
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probabilities = logits.softmax(-1)
    limits = per_prompt(top_p, batch)
    if any(limit is not None for limit in limits):
        enough = torch.tensor([torch.inf if limit is None else limit for limit in limits], device=device)[:, None]
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # A token stays if those ranked before it add up to less than p.
        excluded = ranked.cumsum(-1) - ranked >= enough
        excluded[:, 0] = False  # the most likely token always stays, also where p is 0 in 32 bits
        probabilities = torch.zeros_like(ranked).scatter(-1, order, ranked.masked_fill(excluded, 0.0))
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return torch.where(greedy, torch.zeros_like(probabilities).scatter(-1, most_likely, 1.0), probabilities)


def _is_random(temperature: float) -> bool:
    return temperature >= MIN_TEMPERATURE


def _check(temperature: Any, top_k: int | None, top_p: Any) -> None:
    """Raise ValueError for a value out of range. NaN compares false with everything, so tests name what is legal."""
    for each in per_prompt(temperature, 1):
        if not 0 <= each < math.inf:
            raise ValueError(f"temperature is {each}; expected 0 (the most likely token) or a finite number above")
    if top_k is not None and not top_k >= 1:
        raise ValueError(f"top_k is {top_k}; expected at least 1, or None for no limit")
    for limit in per_prompt(top_p, 1):
        if limit is not None and not 0 < limit <= 1:
            raise ValueError(f"top_p is {limit}; expected a probability in (0, 1], or None for no limit")


def per_prompt(value: Any, prompts: int) -> Sequence[Any]:
    """Return one value per prompt, repeating a value that was given for all."""
    return list(value) if isinstance(value, Sequence) else [value] * prompts
