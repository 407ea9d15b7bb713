"""Two-level fractional factorial designs: which runs to train, which effects they confound, and what the scores say.

    design = half_fraction(("encoder", "connector", "LM", "data", "resolution"))      2^(5−1): 16 runs instead of 32
    design.levels                                                                     [16, 5], −1 or +1
    estimates = effect_estimates(design.columns(design.effects), scores)              scores [16, seeds]

Every effect is the mean score at +1 minus the mean score at −1, over all runs, in the unit of the scores.
An effect is a set of factors: one factor is a main effect, two are their interaction. Source: Box, Hunter and Hunter,
"Statistics for Experimenters", chapters 5 and 6; analysis.py judges the estimates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, combinations

import torch
from jaxtyping import Float
from torch import Tensor

Effect = frozenset[int]
"""The factors, by their place, whose product of levels is the effect's column."""


def full_factorial(factors: int) -> Float[Tensor, "runs factors"]:
    """Return every combination of the levels −1 and +1, in standard order: the first factor changes fastest."""
    runs = torch.arange(2**factors)[:, None]
    return ((runs >> torch.arange(factors)) % 2 * 2 - 1).double()


def fractional_factorial(base_factors: int, generators: Sequence[Sequence[int]]) -> Float[Tensor, "runs factors"]:
    """Return the runs of a fraction: a full design of the base factors, and one generated factor per generator.

    A generator lists base factors; the level of its factor is the product of their levels. E = ABCD, for instance,
    is the generator (0, 1, 2, 3) of the fifth factor. The result has base_factors + len(generators) columns.
    """
    levels = full_factorial(base_factors)
    # exercise 7.11: the columns of generated factors
    generated = [levels[:, list(generator)].prod(dim=1, keepdim=True) for generator in generators]
    levels = torch.cat([levels, *generated], dim=1)
    # end exercise
    return levels


@dataclass(frozen=True)
class Design:
    """A two-level design: 2^base_factors runs for all factors, the last of which are generated.

    Raises ValueError for a generator with an unknown factor, and when factors and generators do not match.
    """

    factors: tuple[str, ...]
    generators: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.base_factors < 1 or len(set(self.factors)) < len(self.factors):
            raise ValueError(
                f"{len(self.generators)} generators for the factors {self.factors}; expected fewer, unique"
            )
        for generator in self.generators:
            if len(set(generator)) < 2 or not set(generator) <= set(range(self.base_factors)):
                raise ValueError(
                    f"the generator {generator} is not a product of base factors 0 to {self.base_factors - 1}"
                )

    @property
    def base_factors(self) -> int:
        """The number of factors whose levels are chosen freely."""
        return len(self.factors) - len(self.generators)

    @property
    def levels(self) -> Float[Tensor, "runs factors"]:
        """The level of each factor in each run, −1 or +1."""
        return fractional_factorial(self.base_factors, self.generators)

    @property
    def words(self) -> tuple[Effect, ...]:
        """The defining relation: the products of factors that are +1 in every run, shortest first."""
        generating = [
            frozenset({*generator, self.base_factors + place}) for place, generator in enumerate(self.generators)
        ]
        subsets = chain.from_iterable(combinations(generating, size) for size in range(1, len(generating) + 1))
        return tuple(sorted((reduce(Effect.symmetric_difference, subset) for subset in subsets), key=_order))

    @property
    def resolution(self) -> int | None:
        """The length of the shortest word; None for a full design.

        III: main effects are confounded with two-factor interactions. IV: with none, but these with each other.
        V: main effects and two-factor interactions are confounded with nothing shorter than three factors.
        """
        return len(self.words[0]) if self.words else None

    def aliases(self, effect: Iterable[int]) -> tuple[Effect, ...]:
        """Return the effects whose columns equal that of `effect`, which no score can tell from it, shortest first."""
        return tuple(sorted((word ^ frozenset(effect) for word in self.words), key=_order))

    @property
    def effects(self) -> tuple[Effect, ...]:
        """Main effects, then two-factor interactions, each confounded group once under its first member."""
        effects: list[Effect] = []
        for candidate in chain.from_iterable(combinations(range(len(self.factors)), size) for size in (1, 2)):
            if not set(self.aliases(candidate)) & set(effects) and frozenset() not in self.aliases(candidate):
                effects.append(frozenset(candidate))
        return tuple(effects)

    def columns(self, effects: Iterable[Iterable[int]]) -> Float[Tensor, "runs effects"]:
        """Return one column per effect: the product of its factors' levels."""
        levels = self.levels
        return torch.stack([levels[:, sorted(effect)].prod(dim=1) for effect in effects], dim=1)

    def name(self, effect: Iterable[int]) -> str:
        """Return the name of an effect: "encoder", or "encoder × LM" for an interaction."""
        return " × ".join(self.factors[place] for place in sorted(effect))

    def recipes(self) -> list[dict[str, int]]:
        """Return the level of each factor, by name, for each run."""
        return [dict(zip(self.factors, map(int, run), strict=True)) for run in self.levels.tolist()]


def _order(effect: Effect) -> tuple[int, list[int]]:
    return len(effect), sorted(effect)


def half_fraction(factors: Sequence[str]) -> Design:
    """Return the half fraction of highest resolution: the last factor is the product of all others.

    For five factors this is 2^(5−1) with E = ABCD: 16 runs, resolution V.
    """
    return Design(tuple(factors), (tuple(range(len(factors) - 1)),))


def quarter_fraction(factors: Sequence[str]) -> Design:
    """Return 2^(5−2) with D = AB and E = AC: eight runs for five factors, resolution III.

    Its words are ABD, ACE and BCDE, so that A = BD = CE, B = AD, C = AE, D = AB, E = AC, BC = DE and BE = CD, up to
    interactions of three and more factors. Raises ValueError for another number of factors.
    """
    if len(factors) != 5:
        raise ValueError(f"a quarter fraction here has five factors, not {len(factors)}")
    return Design(tuple(factors), ((0, 1), (0, 2)))


def effect_estimates(
    columns: Float[Tensor, "runs effects"], scores: Float[Tensor, "runs seeds"]
) -> Float[Tensor, "effects seeds"]:
    """Return each effect for each seed: the mean score of runs at +1 minus the mean score of runs at −1.

    The columns must be balanced and orthogonal, as those of a design are: half of the runs at each level.
    """
    # exercise 7.12: effects from contrasts
    estimates = columns.T @ scores / (len(scores) / 2)
    # end exercise
    return estimates
