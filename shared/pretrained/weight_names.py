"""Map the weight names of a published checkpoint to the names in our model, and back.

A name is dotted, and `{anything}` in it stands for one part between dots, the same on both sides:
`Rename("encoder.layer.{n}.norm1.{leaf}", "blocks.{n}.attention_norm.{leaf}")` covers the weight and the bias of every
layer. Where a weight also changes its shape, the rule states how, in a way that can be inverted.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

WILDCARD = re.compile(r"\{(\w+)\}")


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Return the regular expression of a name with wildcards; a repeated wildcard must repeat its value."""
    groups: set[str] = set()
    expression, end = "", 0
    for match in WILDCARD.finditer(name):
        wildcard = match[1]
        expression += re.escape(name[end : match.start()])
        expression += f"(?P={wildcard})" if wildcard in groups else rf"(?P<{wildcard}>[^.]+)"
        groups.add(wildcard)
        end = match.end()
    return re.compile(expression + re.escape(name[end:]))


def _wildcards(names: Sequence[str]) -> set[str]:
    return {wildcard for name in names for wildcard in WILDCARD.findall(name)}


class Rearrange:
    """A change of one tensor's shape, as an einops pattern; the inverse is the pattern read backwards.

    `Rearrange("width channels row column -> width (row column channels)", channels=3, row=16, column=16)`:
    give the length of every axis inside brackets, on either side, so that both directions are known.
    """

    def __init__(self, pattern: str, **lengths: int):
        self.published, self.model = (side.strip() for side in pattern.split("->"))
        self.lengths = lengths

    def to_model(self, published: Tensor) -> Tensor:
        return rearrange(published, f"{self.published} -> {self.model}", **self.lengths)

    def to_published(self, weight: Tensor) -> Tensor:
        return rearrange(weight, f"{self.model} -> {self.published}", **self.lengths)


class Rule(Protocol):
    """One entry of `WeightNames`: published names, names in the model, and the conversion of their tensors."""

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        """The published names and the model's names, with wildcards."""

    def with_prefix(self, published: str, model: str) -> "Rule":
        """Return the same rule with a prefix before every name."""

    def published_names(self, wildcards: Mapping[str, str], weights: Sequence[Tensor]) -> list[str]:
        """Return the published names for one value of the wildcards; `weights` are the model's tensors of this rule."""

    def to_model(self, published: Sequence[Tensor]) -> list[Tensor]:
        """Convert published tensors to the model's."""

    def to_published(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Convert the model's tensors to published ones."""


class _FixedNames:
    """The usual case of `Rule`: the published names follow from the wildcards alone."""

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        raise NotImplementedError

    def published_names(self, wildcards: Mapping[str, str], weights: Sequence[Tensor]) -> list[str]:
        return [name.format_map(wildcards) for name in self.patterns[0]]


def _split(tensor: Tensor, sizes: Sequence[int] | None, parts: int, dim: int) -> list[Tensor]:
    return list(tensor.split(list(sizes) if sizes else tensor.shape[dim] // parts, dim))


@dataclass(frozen=True)
class Rename(_FixedNames):
    """One published tensor is one of the model's, perhaps in another shape (`Rearrange`)."""

    published: str
    model: str
    shape: Rearrange | None = None

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        return [self.published], [self.model]

    def with_prefix(self, published: str, model: str) -> "Rename":
        return replace(self, published=published + self.published, model=model + self.model)

    def to_model(self, published: Sequence[Tensor]) -> list[Tensor]:
        return [self.shape.to_model(published[0])] if self.shape else list(published)

    def to_published(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return [self.shape.to_published(weights[0])] if self.shape else list(weights)


@dataclass(frozen=True)
class Split(_FixedNames):
    """One published tensor holds several of the model's, concatenated along `dim` (a fused qkv).

    sizes  lengths of the parts; equal lengths when left out
    """

    published: str
    model: Sequence[str]
    dim: int = 0
    sizes: Sequence[int] | None = None

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        return [self.published], list(self.model)

    def with_prefix(self, published: str, model: str) -> "Split":
        return replace(self, published=published + self.published, model=[model + name for name in self.model])

    def to_model(self, published: Sequence[Tensor]) -> list[Tensor]:
        return _split(published[0], self.sizes, len(self.model), self.dim)

    def to_published(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(weights), self.dim)]


@dataclass(frozen=True)
class Join(_FixedNames):
    """Several published tensors, concatenated along `dim`, are one of the model's: the inverse of `Split`.

    sizes  lengths of the parts; equal lengths when left out
    """

    published: Sequence[str]
    model: str
    dim: int = 0
    sizes: Sequence[int] | None = None

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        return list(self.published), [self.model]

    def with_prefix(self, published: str, model: str) -> "Join":
        return replace(self, published=[published + name for name in self.published], model=model + self.model)

    def to_model(self, published: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(published), self.dim)]

    def to_published(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return _split(weights[0], self.sizes, len(self.published), self.dim)


@dataclass(frozen=True)
class Stack:
    """A numbered family of published tensors is one of the model's with a new axis `dim` (a layer's experts).

    `{each}` in the published name counts 0, 1, 2, … along that axis.
    """

    published: str
    model: str
    dim: int = 0

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        return [self.published], [self.model]

    def with_prefix(self, published: str, model: str) -> "Stack":
        return replace(self, published=published + self.published, model=model + self.model)

    def published_names(self, wildcards: Mapping[str, str], weights: Sequence[Tensor]) -> list[str]:
        count = weights[0].shape[self.dim]
        return [self.published.format_map({**wildcards, "each": str(each)}) for each in range(count)]

    def to_model(self, published: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack(list(published), self.dim)]

    def to_published(self, weights: Sequence[Tensor]) -> list[Tensor]:
        return list(weights[0].unbind(self.dim))


@dataclass(frozen=True)
class Tie:
    """Two published names for one tensor (a language model's output layer and its embedding).

    A file may leave `published` out; where it contains it, it must equal `to`. It is not written.
    """

    published: str
    to: str


@dataclass(frozen=True)
class Match:
    """A rule with its wildcards filled in: which published tensors correspond to which of the model's."""

    rule: Rule
    published: list[str]
    model: list[str]


def with_prefix(published: str, model: str, rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules of a model that is a part of another: `with_prefix("vision_model.", "vision.", rules)`."""
    return [rule.with_prefix(published, model) for rule in rules]


class WeightNames:
    """All rules of a model.

    rules      for each name of the model, the first rule that fits gives the published name that is written
    also_read  rules for other spellings that files use; they are read and never written
    ties       published names that repeat another tensor
    ignore     published names (with wildcards) that files may contain and this model does not use

    Raises ValueError when a rule's two sides do not have the same wildcards.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        also_read: Sequence[Rule] = (),
        ties: Sequence[Tie] = (),
        ignore: Sequence[str] = (),
    ):
        self.rules, self.also_read, self.ties, self.ignore = list(rules), list(also_read), list(ties), list(ignore)
        for rule in [*self.rules, *self.also_read]:
            published, model = rule.patterns
            if any(_wildcards([name]) - {"each"} != _wildcards(model) for name in published):
                raise ValueError(f"{rule}: the published names and the model's must have the same {{wildcards}}")

    def ignores(self, published: str) -> bool:
        """Return whether files may contain this published name although the model does not use it."""
        return any(_pattern(name).fullmatch(published) for name in self.ignore)

    def matches(
        self, weights: Mapping[str, Tensor], present: Collection[str] = (), *, skip_uncovered: bool = False
    ) -> list[Match]:
        """Cover every weight of the model by a rule, in the spelling that the names `present` in a file follow.

        Raises ValueError for a weight that no rule covers; with `skip_uncovered` it is left out.
        """
        matches: list[Match] = []
        covered: set[str] = set()
        for name in weights:
            if name in covered:
                continue
            candidates = [
                match
                for rule in [*self.rules, *self.also_read]
                if (match := self._match(rule, name, weights)) is not None
            ]
            if not candidates and skip_uncovered:
                continue
            if not candidates:
                raise ValueError(f"no rule covers the model's weight {name!r}; add one to its weight names")
            # `max` keeps the first of equals: the spelling that is written, unless another has more names in the file.
            best = max(
                candidates,
                key=lambda match: sum(published in present for published in match.published) / len(match.published),
            )
            matches.append(best)
            covered.update(best.model)
        return matches

    @staticmethod
    def _match(rule: Rule, name: str, weights: Mapping[str, Tensor]) -> Match | None:
        patterns = rule.patterns[1]
        for pattern in patterns:
            match = _pattern(pattern).fullmatch(name)
            if match:
                names = [other.format_map(match.groupdict()) for other in patterns]
                if all(other in weights for other in names):
                    published = rule.published_names(match.groupdict(), [weights[other] for other in names])
                    return Match(rule, published, names)
        return None

    def to_published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's weights under their published names and in their published shape."""
        published: dict[str, Tensor] = {}
        for match in self.matches(weights):
            tensors = match.rule.to_published([weights[name] for name in match.model])
            published.update(zip(match.published, tensors, strict=True))
        return published
