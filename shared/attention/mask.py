"""The mask algebra: every attention pattern of the course as a few integers per token.

A mask is never stored as a matrix. Each query and each key has a *position*, a *segment* and a *span*, and one rule
decides for any pair whether the query attends to the key. A sequence of a million tokens needs a few million integers;
its dense mask would need a terabyte.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mask:
    """The rule for which keys are visible to each query.

    Key j is visible to query i when

        segment_q[i] == segment_k[j] ≥ 0
        and (not causal or position_k[j] ≤ position_q[i] or span_q[i] == span_k[j] ≥ 0)
        and (window is None or |position_q[i] − position_k[j]| < window)

    causal    later keys are hidden, except inside a span that both share
    window    keys further than `window − 1` positions away, in either direction, are hidden
    position  place of a token in its sequence; when left out, tokens are counted from 0, and queries are aligned with
              the *first* keys: give positions to decode at the end of a cache
    segment   image or document that a token belongs to; −1 is padding, which attends to nothing and is never visible;
              when left out, every token has segment 0
    span      group of tokens that attend to each other in both directions in a causal sequence (an image in text);
              −1, or left out, is no span

    Each tensor has shape [batch, length], where a batch of 1 is shared by all rows.
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
        """Return the rule for every pair as a dense matrix: True where the key is visible to the query.

        The batch is 1 when no tensor of the mask has a larger one.
        """
        tokens = self.filled_tensors(q_len, k_len, device)
        position_q, segment_q, span_q = (tokens[f"{name}_q"][:, :, None] for name in ("position", "segment", "span"))
        position_k, segment_k, span_k = (tokens[f"{name}_k"][:, None, :] for name in ("position", "segment", "span"))
        visible = (segment_q == segment_k) & (segment_k >= 0)
        if self.causal:
            not_later = position_k <= position_q
            same_span = (span_q == span_k) & (span_k >= 0)
            visible = visible & (not_later | same_span)
        if self.window is not None:
            visible = visible & ((position_q - position_k).abs() < self.window)
        return visible

    def filled(self, q_len: int, k_len: int, device: torch.device | str | None = None) -> "Mask":
        """Return the same mask with every tensor present; the defaults have a batch of 1."""
        return Mask(self.causal, self.window, **self.filled_tensors(q_len, k_len, device))

    def filled_tensors(
        self, q_len: int, k_len: int, device: torch.device | str | None = None
    ) -> dict[str, Int[Tensor, "rows length"]]:
        """Return every tensor of the mask by name; those left out have their default, with a batch of 1."""
        device = device if device is not None else next((t.device for t in self.tensors.values()), None)
        defaults = {
            "position_q": torch.arange(q_len),
            "position_k": torch.arange(k_len),
            "segment_q": torch.zeros(q_len, dtype=torch.long),
            "segment_k": torch.zeros(k_len, dtype=torch.long),
            "span_q": torch.full((q_len,), -1),
            "span_k": torch.full((k_len,), -1),
        }
        tensors = self.tensors
        return {
            name: tensors[name].to(device) if name in tensors else default[None].to(device)
            for name, default in defaults.items()
        }

    def from_query(self, first: int, q_len: int, k_len: int, device: torch.device | str | None = None) -> "Mask":
        """Return the rule for the queries from `first` on, of `q_len`, against the same keys."""
        tensors = self.filled_tensors(q_len, k_len, device)
        rows = {name: tensor[:, first:] if name.endswith("_q") else tensor for name, tensor in tensors.items()}
        return Mask(self.causal, self.window, **rows)

    def with_window(self, window: int | None) -> "Mask":
        """Return the same mask with another window, such as that of a layer with local attention."""
        return Mask(
            self.causal,
            window,
            self.position_q,
            self.position_k,
            self.segment_q,
            self.segment_k,
            self.span_q,
            self.span_k,
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of this mask that are not left out, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> "Mask":
        """Return the same mask with its tensors on `device`."""
        return Mask(self.causal, self.window, **{name: tensor.to(device) for name, tensor in self.tensors.items()})

    def check(self, batch: int, q_len: int, k_len: int, device: torch.device) -> None:
        """Raise ValueError unless the mask fits queries [batch, q_len] and keys [batch, k_len] on `device`."""
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"window is {self.window}; expected at least 1: it counts visible positions, the token's own included"
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
                    f"mask.{name} is on {tensor.device} and the queries are on {device}; "
                    f"move the mask with mask.to('{device}')"
                )


# Every key is visible to every query: the mask of an image encoder, and the default everywhere.
FULL_ATTENTION = Mask()


def packed_segments(lengths: list[int], total: int | None = None) -> Int[Tensor, "1 total"]:
    """Return the segments of sequences packed one after another: [3, 2] gives 0 0 0 1 1, then −1 up to `total`.

    Raises ValueError when the lengths add up to more than `total`.
    """
    filled = sum(lengths)
    total = filled if total is None else total
    if filled > total:
        raise ValueError(f"lengths {lengths} add up to {filled}, more than the total of {total}")
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.long))
    return torch.cat([numbers, torch.full((total - filled,), -1)])[None]


def padded_segments(lengths: list[int], longest: int | None = None) -> Int[Tensor, "batch longest"]:
    """Return the segments of rows padded at the end: 0 for the first `lengths[b]` tokens of row b, −1 after them.

    Raises ValueError when a row is longer than `longest`.
    """
    longest = max(lengths) if longest is None else longest
    if max(lengths) > longest:
        raise ValueError(f"a row of {max(lengths)} tokens does not fit into {longest}")
    real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    return torch.where(real, 0, -1)
