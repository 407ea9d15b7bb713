"""Two names for one weight: tables between a published layout and ours, read in both directions.

A name is dotted, and `{anything}` in it stands for one part between dots, the same on both sides:
`Rename("encoder.layer.{n}.norm1.{leaf}", "blocks.{n}.attention_norm.{leaf}")` covers the weight and the
bias of every layer. Where a weight also changes its form, the rule says how, in a way that can be undone.
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
def _pattern(name: str) -> re.Pattern:
    """The regular expression of a name with wildcards; a wildcard seen before must repeat itself."""
    seen, expression, end = set(), "", 0
    for found in WILDCARD.finditer(name):
        wildcard = found[1]
        expression += re.escape(name[end : found.start()])
        expression += f"(?P={wildcard})" if wildcard in seen else rf"(?P<{wildcard}>[^.]+)"
        seen.add(wildcard)
        end = found.end()
    return re.compile(expression + re.escape(name[end:]))


def _wildcards(names: Sequence[str]) -> set[str]:
    return {wildcard for name in names for wildcard in WILDCARD.findall(name)}


class Rearrange:
    """One tensor's change of form, as an einops pattern; the way back is the pattern turned round.

    `Rearrange("width channels row column -> width (row column channels)", channels=3, row=16, column=16)`:
    name the length of every axis inside brackets, on either side, so that both directions are known.
    """

    def __init__(self, pattern: str, **lengths: int):
        self.public, self.ours = (side.strip() for side in pattern.split("->"))
        self.lengths = lengths

    def to_ours(self, public: Tensor) -> Tensor:
        return rearrange(public, f"{self.public} -> {self.ours}", **self.lengths)

    def to_public(self, ours: Tensor) -> Tensor:
        return rearrange(ours, f"{self.ours} -> {self.public}", **self.lengths)


class Rule(Protocol):
    """What a table is made of: some public names, some of ours, and the way between their tensors."""

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        """Public names and our names, with wildcards."""

    def under(self, public: str, ours: str) -> "Rule":
        """The same rule with every name put behind a prefix."""

    def public_names(self, wildcards: Mapping[str, str], ours: Sequence[Tensor]) -> list[str]:
        """The public names for one layer; `ours` are that layer's tensors in our form."""

    def to_ours(self, public: Sequence[Tensor]) -> list[Tensor]: ...

    def to_public(self, ours: Sequence[Tensor]) -> list[Tensor]: ...


class _OneToOneNames:
    """The usual case of `Rule`: as many public names as patterns for them."""

    def public_names(self, wildcards: Mapping[str, str], ours: Sequence[Tensor]) -> list[str]:
        return [name.format_map(wildcards) for name in self.patterns[0]]


@dataclass(frozen=True)
class Rename(_OneToOneNames):
    """One public tensor is one of ours, perhaps in another form (`Rearrange`)."""

    public: str
    ours: str
    form: Rearrange | None = None

    @property
    def patterns(self):
        return [self.public], [self.ours]

    def under(self, public, ours):
        return replace(self, public=public + self.public, ours=ours + self.ours)

    def to_ours(self, public):
        return [self.form.to_ours(public[0])] if self.form else list(public)

    def to_public(self, ours):
        return [self.form.to_public(ours[0])] if self.form else list(ours)


@dataclass(frozen=True)
class Split(_OneToOneNames):
    """One public tensor holds several of ours, one behind the other along `dim`.

    `sizes` are the lengths of the parts; without them the parts are equally long.
    """

    public: str
    ours: Sequence[str]
    dim: int = 0
    sizes: Sequence[int] | None = None

    @property
    def patterns(self):
        return [self.public], list(self.ours)

    def under(self, public, ours):
        return replace(self, public=public + self.public, ours=[ours + name for name in self.ours])

    def to_ours(self, public):
        whole = public[0]
        return list(whole.split(list(self.sizes) if self.sizes else whole.shape[self.dim] // len(self.ours), self.dim))

    def to_public(self, ours):
        return [torch.cat(list(ours), self.dim)]


@dataclass(frozen=True)
class Join(_OneToOneNames):
    """Several public tensors, one behind the other along `dim`, are one of ours: `Split` seen in a mirror."""

    public: Sequence[str]
    ours: str
    dim: int = 0
    sizes: Sequence[int] | None = None

    @property
    def patterns(self):
        return list(self.public), [self.ours]

    def under(self, public, ours):
        return replace(self, public=[public + name for name in self.public], ours=ours + self.ours)

    def to_ours(self, public):
        return [torch.cat(list(public), self.dim)]

    def to_public(self, ours):
        whole = ours[0]
        return list(
            whole.split(list(self.sizes) if self.sizes else whole.shape[self.dim] // len(self.public), self.dim)
        )


@dataclass(frozen=True)
class Stack:
    """A numbered family of public tensors is one of ours with a new axis `dim` (a layer's experts).

    `{each}` in the public name counts 0, 1, 2, … along that axis.
    """

    public: str
    ours: str
    dim: int = 0

    @property
    def patterns(self):
        return [self.public], [self.ours]

    def under(self, public, ours):
        return replace(self, public=public + self.public, ours=ours + self.ours)

    def public_names(self, wildcards, ours):
        return [self.public.format_map({**wildcards, "each": each}) for each in range(ours[0].shape[self.dim])]

    def to_ours(self, public):
        return [torch.stack(list(public), self.dim)]

    def to_public(self, ours):
        return list(ours[0].unbind(self.dim))


@dataclass(frozen=True)
class Tie:
    """Two public names for one tensor (a language model's head and its embedding).

    A file may leave `public` out; where it holds it, it must equal `to`. It is not written.
    """

    public: str
    to: str


@dataclass(frozen=True)
class Match:
    """A rule with its wildcards filled in: these public tensors are those of ours."""

    rule: Rule
    public: list[str]
    ours: list[str]


def under(public: str, ours: str, rules: Sequence[Rule]) -> list[Rule]:
    """The same rules for a model that sits inside another: `under("vision_model.", "vision.", rules)`."""
    return [rule.under(public, ours) for rule in rules]


class Table:
    """All rules of a model.

    rules:      for each of our names the first rule that fits is the published spelling, the one that is written.
    also_read:  rules for other spellings in which files exist; they are read and never written.
    ties:       public names that repeat another tensor.
    ignore:     public names (with wildcards) that files may hold and that mean nothing to this model.
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
            public, ours = rule.patterns
            if any(_wildcards([name]) - {"each"} != _wildcards(ours) for name in public):
                raise ValueError(f"{rule}: the public names and ours must have the same {{wildcards}}")

    def ignores(self, public_name: str) -> bool:
        return any(_pattern(name).fullmatch(public_name) for name in self.ignore)

    def matches(self, ours: Mapping[str, Tensor], present: Collection[str] = ()) -> list[Match]:
        """Cover every one of our tensors by a rule, in the spelling that the names `present` in a file follow.

        Raises ValueError for a name of ours that no rule covers: the table itself is incomplete.
        """
        matches, covered = [], set()
        for name in ours:
            if name in covered:
                continue
            candidates = [
                match for rule in [*self.rules, *self.also_read] if (match := self._match(rule, name, ours)) is not None
            ]
            if not candidates:
                raise ValueError(f"the table has no rule for our weight {name!r}")
            # `max` keeps the first of equals: the published spelling, unless another has more of its names in the file.
            best = max(
                candidates, key=lambda match: sum(public in present for public in match.public) / len(match.public)
            )
            matches.append(best)
            covered.update(best.ours)
        return matches

    @staticmethod
    def _match(rule: Rule, name: str, ours: Mapping[str, Tensor]) -> Match | None:
        patterns = rule.patterns[1]
        for pattern in patterns:
            found = _pattern(pattern).fullmatch(name)
            if found:
                names = [other.format_map(found.groupdict()) for other in patterns]
                if all(other in ours for other in names):
                    public = rule.public_names(found.groupdict(), [ours[other] for other in names])
                    return Match(rule, public, names)
        return None

    def to_public(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their published names and in their published form."""
        public = {}
        for match in self.matches(ours):
            public.update(zip(match.public, match.rule.to_public([ours[name] for name in match.ours]), strict=True))
        return public
