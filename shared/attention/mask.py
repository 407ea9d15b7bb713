"""Who may look at whom: every attention pattern of the course in a few small integers.

A mask is never stored as a matrix. Each query and each key carries a *position*, a *segment* and a
*span*, and one rule decides, for any pair, whether the query sees the key. A sequence of a million
tokens then needs a few million integers, where its dense mask would need a terabyte.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """Which keys each query sees.

    Query i sees key j when

        segment_q[i] == segment_k[j] ≥ 0
        and (not causal or position_k[j] ≤ position_q[i] or span_q[i] == span_k[j] ≥ 0)
        and (window is None or |position_q[i] − position_k[j]| < window)

    causal    nobody looks ahead, except inside a span that both share
    window    nobody looks further than `window − 1` positions, in either direction
    position  the place of a token in its sequence; left out, tokens are counted from 0.
              Queries are then aligned with the *first* keys: give positions to decode at the end of a cache.
    segment   which image or document a token belongs to; −1 is padding, which sees and is seen by nobody;
              left out, every token is of segment 0
    span      a group of tokens that see each other both ways in a causal sequence (an image among text);
              −1, or left out, is no span

    Each tensor has shape [batch, length], where a batch of 1 is shared by all.
    """

    causal: bool = False
    window: int | None = None
    position_q: Int[Tensor, "#batch q_len"] | None = None
    position_k: Int[Tensor, "#batch k_len"] | None = None
    segment_q: Int[Tensor, "#batch q_len"] | None = None
    segment_k: Int[Tensor, "#batch k_len"] | None = None
    span_q: Int[Tensor, "#batch q_len"] | None = None
    span_k: Int[Tensor, "#batch k_len"] | None = None

    def visible(
        self, q_len: int, k_len: int, device: torch.device | str | None = None
    ) -> Bool[Tensor, "batch q_len k_len"]:
        """The rule above, spelled out for every pair: True where the query sees the key.

        The batch is 1 when no tensor of the mask has a larger one.
        """
        of = self.filled(q_len, k_len, device)
        seen = (of.segment_q[:, :, None] == of.segment_k[:, None, :]) & (of.segment_k[:, None, :] >= 0)
        if self.causal:
            not_ahead = of.position_k[:, None, :] <= of.position_q[:, :, None]
            together = (of.span_q[:, :, None] == of.span_k[:, None, :]) & (of.span_k[:, None, :] >= 0)
            seen = seen & (not_ahead | together)
        if self.window is not None:
            seen = seen & ((of.position_q[:, :, None] - of.position_k[:, None, :]).abs() < self.window)
        return seen

    def filled(self, q_len: int, k_len: int, device: torch.device | str | None = None) -> "Mask":
        """The same mask with every tensor present: what was left out is counted, 0 or −1, with a batch of 1."""
        device = device if device is not None else next((t.device for t in self.tensors.values()), None)

        def given_or(given: Tensor | None, default: Tensor) -> Tensor:
            return default[None].to(device) if given is None else given.to(device)

        return replace(
            self,
            position_q=given_or(self.position_q, torch.arange(q_len)),
            position_k=given_or(self.position_k, torch.arange(k_len)),
            segment_q=given_or(self.segment_q, torch.zeros(q_len, dtype=torch.long)),
            segment_k=given_or(self.segment_k, torch.zeros(k_len, dtype=torch.long)),
            span_q=given_or(self.span_q, torch.full((q_len,), -1)),
            span_k=given_or(self.span_k, torch.full((k_len,), -1)),
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that were given, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> "Mask":
        """The same mask with its tensors on `device`."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def check(self, batch: int, q_len: int, k_len: int, device: torch.device) -> None:
        """Raise ValueError unless the mask fits queries [batch, q_len] and keys [batch, k_len] on `device`."""
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"window is {self.window}; it counts the positions a token sees, itself included: at least 1"
            )
        for name, tensor in self.tensors.items():
            length = q_len if name.endswith("_q") else k_len
            if tensor.ndim != 2 or tensor.shape[0] not in (1, batch) or tensor.shape[1] != length:
                raise ValueError(
                    f"mask.{name} has shape {list(tensor.shape)}; expected [{batch}, {length}], "
                    f"or [1, {length}] to share it among the batch"
                )
            if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
                raise ValueError(f"mask.{name} is {tensor.dtype}; expected integers (call .long() on it)")
            if tensor.device != device:
                raise ValueError(
                    f"mask.{name} is on {tensor.device} and the queries are on {device}; move the mask with mask.to('{device}')"
                )


# Every query sees every key: the mask of an image encoder, and the default everywhere.
FULL_ATTENTION = Mask()


def packed_segments(lengths: list[int], total: int | None = None) -> Int[Tensor, "1 total"]:
    """Segment numbers of sequences packed one after another: [3, 2] gives 0 0 0 1 1; up to `total`, padding (−1).

    Raises ValueError when the lengths add up to more than `total`.
    """
    filled = sum(lengths)
    total = filled if total is None else total
    if filled > total:
        raise ValueError(f"lengths {lengths} add up to {filled}, more than the {total} places there are")
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.long))
    return torch.cat([numbers, torch.full((total - filled,), -1)])[None]


def padded_segments(lengths: list[int], longest: int | None = None) -> Int[Tensor, "batch longest"]:
    """Segments of a batch padded at the end: 0 for the first `lengths[b]` tokens of row b, −1 after them.

    Raises ValueError when a row is longer than `longest`.
    """
    longest = max(lengths) if longest is None else longest
    if max(lengths) > longest:
        raise ValueError(f"a row of {max(lengths)} tokens does not fit into {longest}")
    real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    return torch.where(real, 0, -1)
