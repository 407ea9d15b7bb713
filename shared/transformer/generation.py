"""Writing with a decoder: choose a token, read it, choose the next."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared.attention import segments_of_ragged_batch
from shared.transformer.decoder import Decoder


def generate(
    decoder: Decoder,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int | Sequence[int],
    temperature: float | Sequence[float] = 0.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
    stop_tokens: Collection[int] = (),
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    use_cache: bool = True,
) -> list[Int[Tensor, "new_tokens"]]:
    """Continue each prompt; give the new tokens of each, up to and with its first stop token.

    prompts      tokens [length] each, of any lengths; or vectors [length, width], where images stand among the text
    temperature  0 takes the likeliest token; 1 samples from the model's own probabilities
    top_k        sample among the k likeliest only
    top_p        sample among the smallest set of likeliest tokens that together reach probability p
                 (nucleus sampling, arXiv:1904.09751, section 3.1)
    generator    of randomness, on the CPU; one for each prompt makes a prompt's text independent of its batch
    use_cache    False reads everything again for each token: the same text, slower

    A length, a temperature or a top_p may be one for all, or one for each prompt.
    Raises ValueError when there is no prompt, one is empty, or a setting is out of its range.
    """
    written: list[list[int]] = [[] for _ in prompts]
    for tokens in stream(
        decoder,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stop_tokens,
        generator=generator,
        use_cache=use_cache,
    ):
        for row, token in zip(written, tokens, strict=True):
            if token is not None:
                row.append(token)
    return [torch.tensor(row, dtype=torch.long) for row in written]


def stream(
    decoder: Decoder,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int | Sequence[int],
    temperature: float | Sequence[float] = 0.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
    stop_tokens: Collection[int] = (),
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    use_cache: bool = True,
) -> Iterator[list[int | None]]:
    """As `generate`, while it is being written: at each step every prompt's next token, None for one that has ended."""
    _check(prompts, max_new_tokens, temperature, top_k, top_p, generator)
    limits = _one_each(max_new_tokens, len(prompts))
    choose = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
    return _steps(decoder, prompts, limits, choose, frozenset(stop_tokens), use_cache)


def _steps(
    decoder: Decoder,
    prompts: Sequence[Tensor],
    limits: Sequence[int],
    choose: Callable[[Tensor], Tensor],
    stop_tokens: Collection[int],
    use_cache: bool,
) -> Iterator[list[int | None]]:
    was_training = decoder.training
    decoder.eval()
    try:
        reader = _Reader(decoder, prompts, max(limits), use_cache)
        unfinished = set(range(len(prompts)))
        logits = reader.read_all()
        for step in range(1, max(limits) + 1):
            tokens = choose(logits)
            row_tokens = tokens.tolist()
            yield [token if row in unfinished else None for row, token in enumerate(row_tokens)]
            unfinished -= {row for row in unfinished if row_tokens[row] in stop_tokens or step == limits[row]}
            if not unfinished:
                break
            # Rows that have finished read on in step with the others; nobody looks at what they say.
            logits = reader.read(tokens)
    finally:
        decoder.train(was_training)


def sample(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Int[Tensor, "batch"]:
    """One token for each row: a uniform number on the CPU picks the place in the cumulated probabilities.

    So the same seed gives the same text on every device.
    """
    batch, likeliest = logits.shape[0], logits.argmax(-1)
    temperatures = _one_each(temperature, batch)
    if not any(temperatures):
        return likeliest
    # Of a row without a temperature the likeliest token is taken; it needs some number to be divided by all the same.
    heated = [own or 1.0 for own in temperatures]
    ranked, order = token_probabilities(logits, temperature=heated, top_k=top_k, top_p=top_p).sort(
        dim=-1, descending=True, stable=True
    )
    if generator is None or isinstance(generator, torch.Generator):
        uniform = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
    else:
        uniform = torch.stack([torch.rand(1, generator=each, dtype=torch.float64) for each in generator])
    cumulated = ranked.double().cumsum(-1)
    place = torch.searchsorted(cumulated, uniform.to(logits.device) * cumulated[:, -1:])
    chosen = order.gather(-1, place).squeeze(-1)
    return torch.where(torch.tensor(temperatures, device=logits.device) == 0, likeliest, chosen)


def token_probabilities(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | None = None,
    top_p: float | Sequence[float | None] | None = None,
) -> Float[Tensor, "batch vocab"]:
    """The probabilities that tokens are sampled from: cooled or heated, then cut to the likeliest, adding up to 1."""
    batch, device = logits.shape[0], logits.device
    logits = logits.float() / torch.tensor(_one_each(temperature, batch), device=device)[:, None]
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probabilities = logits.softmax(-1)
    limits = _one_each(top_p, batch)
    if any(limit is not None for limit in limits):
        enough = torch.tensor([torch.inf if limit is None else limit for limit in limits], device=device)[:, None]
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # A token stays while those before it have not yet reached p: the likeliest one always does.
        before = ranked.cumsum(-1) - ranked
        probabilities = torch.zeros_like(ranked).scatter(-1, order, ranked.masked_fill(before >= enough, 0.0))
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def _one_each(setting: Any, rows: int) -> Sequence[Any]:
    """A setting for each row, where one may have been given for all."""
    return list(setting) if isinstance(setting, Sequence) else [setting] * rows


class _Reader:
    """Feeds a batch of ragged prompts, then one token at a time, to the decoder; gives the logits of what follows.

    Prompts are padded at their ends. Padding is of segment −1, and a row's next token takes the position after its
    own last one, so that no row notices how long the others are.
    """

    # Each of these by itself, and not the stream as a whole: between two steps gradients are the caller's affair.
    @torch.no_grad()
    def __init__(self, decoder: Decoder, prompts: Sequence[Tensor], max_new_tokens: int, use_cache: bool):
        device = decoder.embedding.weight.device
        self.decoder = decoder
        self.rows = [decoder.embedding(p.to(device)) if p.ndim == 1 else p.to(device) for p in prompts]
        self.lengths = torch.tensor([len(row) for row in self.rows], device=device)
        self.ragged = len({len(row) for row in self.rows}) > 1
        longest = max(len(row) for row in self.rows)
        self.cache = decoder.new_cache(len(prompts), longest + max_new_tokens - 1) if use_cache else None

    @torch.no_grad()
    def read_all(self) -> Float[Tensor, "batch vocab"]:
        """Read the rows from their starts."""
        embeddings = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        segments = positions = None
        if self.ragged:
            segments = segments_of_ragged_batch(self.lengths.tolist()).to(embeddings.device)
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        features = self.decoder.features(
            embeddings=embeddings, positions=positions, segments=segments, cache=self.cache
        )
        last = (self.lengths - 1)[:, None, None].expand(-1, 1, features.shape[2])
        return self.decoder.output(features.gather(1, last).squeeze(1))

    @torch.no_grad()
    def read(self, tokens: Int[Tensor, "batch"]) -> Float[Tensor, "batch vocab"]:
        """Read one more token of each row."""
        embeddings = self.decoder.embedding(tokens[:, None])
        positions = self.lengths[:, None] if self.ragged else None
        self.lengths = self.lengths + 1
        if self.cache is not None:
            return self.decoder(embeddings=embeddings, positions=positions, cache=self.cache)[:, -1]
        self.rows = [torch.cat([row, new]) for row, new in zip(self.rows, embeddings, strict=True)]
        return self.read_all()


def _check(
    prompts: Sequence[Tensor],
    max_new_tokens: int | Sequence[int],
    temperature: float | Sequence[float],
    top_k: int | None,
    top_p: float | Sequence[float | None] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> None:
    if len(prompts) == 0 or any(len(prompt) == 0 for prompt in prompts):
        raise ValueError(
            f"prompts have lengths {[len(p) for p in prompts]}; expected at least one, each of at least one token "
            "(begin with the begin-of-text token)"
        )
    given = {"generators": generator, "values of max_new_tokens": max_new_tokens, "temperatures": temperature}
    for name, values in (given | {"values of top_p": top_p}).items():
        if isinstance(values, Sequence) and len(values) != len(prompts):
            raise ValueError(f"{len(values)} {name} for {len(prompts)} prompts; give one for each, or one for all")
    for length in _one_each(max_new_tokens, 1):
        if length < 1:
            raise ValueError(f"max_new_tokens is {length}; expected at least 1")
    for heat in _one_each(temperature, 1):
        if heat < 0:
            raise ValueError(f"temperature is {heat}; expected 0 (the likeliest token) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; expected at least 1, or None for no limit")
    for limit in _one_each(top_p, 1):
        if limit is not None and not 0 < limit <= 1:
            raise ValueError(f"top_p is {limit}; expected a probability in (0, 1], or None for no limit")
