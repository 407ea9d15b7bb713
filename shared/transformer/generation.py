"""Text generation with a decoder: prefill the prompts, choose a token per prompt, decode it, repeat."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shared.attention import padded_segments
from shared.transformer.kv_cache import KVCache
from shared.transformer.sampling import Choose, Constraint, Generators, Sampling, constrained, per_prompt, sample


@runtime_checkable
class CausalModel(Protocol):
    """The parts of a `Decoder` that generation uses; a model that contains a decoder can have them too."""

    training: bool

    @property
    def embedding(self) -> nn.Embedding: ...

    @property
    def output(self) -> nn.Linear: ...

    def hidden_states(self, *args: Any, **kwargs: Any) -> Tensor: ...

    def new_cache(self, batch: int, capacity: int) -> KVCache: ...

    def train(self, mode: bool = True) -> Any: ...


def generate(
    decoder: CausalModel,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    *,
    generator: Generators | None = None,
    use_cache: bool = True,
    model_inputs: Mapping[str, Any] | None = None,
    constraint: Constraint | None = None,
) -> list[Int[Tensor, "new_tokens"]]:
    """Continue each prompt; return its new token ids, up to and including its first stop token.

    prompts       token ids [length] each, of any lengths; or embeddings [length, width], where images stand in the text
    generator     random generator on the CPU; with one per prompt, a text does not depend on the rest of the batch
    use_cache     False recomputes all tokens at every step: the same text, slower
    model_inputs  further arguments of `decoder.hidden_states`, the same at every step, such as Flamingo's images
    constraint    which tokens each text may continue with; it is used up, so that every call needs a new one

    Raises ValueError when there is no prompt, a prompt is empty, the number of values per prompt does not fit, or the
    constraint excludes every token.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    steps = stream(
        decoder,
        prompts,
        sampling,
        generator=generator,
        use_cache=use_cache,
        model_inputs=model_inputs,
        constraint=constraint,
    )
    for token_ids in steps:
        for text, token_id in zip(texts, token_ids, strict=True):
            if token_id is not None:
                text.append(token_id)
    return [torch.tensor(text, dtype=torch.long) for text in texts]


def stream(
    decoder: CausalModel,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    *,
    generator: Generators | None = None,
    use_cache: bool = True,
    model_inputs: Mapping[str, Any] | None = None,
    constraint: Constraint | None = None,
) -> Iterator[list[int | None]]:
    """Yield the tokens of `generate` step by step: one token id per prompt, None for a prompt whose text has ended.

    Arguments and errors are those of `generate`; errors are raised at the call, before the first step.
    """
    _check(prompts, sampling, generator)
    choose: Choose = partial(
        sample, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, generator=generator
    )
    if constraint is not None:
        choose = constrained(choose, constraint)
    return _steps(decoder, prompts, sampling, choose, use_cache, model_inputs or {})


def _steps(
    decoder: CausalModel,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    choose: Callable[[Tensor], Tensor],
    use_cache: bool,
    model_inputs: Mapping[str, Any],
) -> Iterator[list[int | None]]:
    limits, stop_token_ids = per_prompt(sampling.max_new_tokens, len(prompts)), frozenset(sampling.stop_token_ids)
    was_training = decoder.training
    decoder.train(False)
    try:
        longest = max(map(len, prompts)) + max(limits)
        cache = decoder.new_cache(len(prompts), longest - 1) if use_cache else None
        batch = _Batch(decoder, prompts, cache, model_inputs)
        unfinished = set(range(len(prompts)))
        logits = batch.prefill()
        for step in range(1, max(limits) + 1):
            chosen = choose(logits)
            token_ids = chosen.tolist()
            yield [token_id if row in unfinished else None for row, token_id in enumerate(token_ids)]
            unfinished -= {row for row in unfinished if token_ids[row] in stop_token_ids or step == limits[row]}
            if not unfinished:
                break
            # Finished rows are decoded in step with the others; their tokens are discarded.
            logits = batch.decode(chosen)
    finally:
        decoder.train(was_training)


class _Batch:
    """A ragged batch of prompts in a decoder; `prefill` and `decode` return the logits of each row's next token.

    Prompts are padded at the end. Padding has segment −1, and a row's next token takes the position after the row's
    last token, so that a row does not depend on the lengths of the others.
    """

    # no_grad on each method and not around the generator: between two steps the caller decides about gradients.
    @torch.no_grad()
    def __init__(
        self, decoder: CausalModel, prompts: Sequence[Tensor], cache: KVCache | None, model_inputs: Mapping[str, Any]
    ):
        device = decoder.embedding.weight.device
        self.decoder, self.cache, self.model_inputs = decoder, cache, model_inputs
        self.rows = [decoder.embedding(p.to(device)) if p.ndim == 1 else p.to(device) for p in prompts]
        self.lengths = torch.tensor([len(row) for row in self.rows], device=device)
        self.ragged = len({len(row) for row in self.rows}) > 1

    @torch.no_grad()
    def prefill(self) -> Float[Tensor, "batch vocab"]:
        """Compute all rows from their starts."""
        embeddings = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True)
        segments = positions = None
        if self.ragged:
            segments = padded_segments(self.lengths.tolist()).to(embeddings.device)
            positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        states = self.decoder.hidden_states(
            embeddings=embeddings, positions=positions, segments=segments, cache=self.cache, **self.model_inputs
        )
        last = (self.lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        return self.decoder.output(states.gather(1, last).squeeze(1))

    @torch.no_grad()
    def decode(self, token_ids: Int[Tensor, "batch"]) -> Float[Tensor, "batch vocab"]:
        """Append one token to each row."""
        embeddings = self.decoder.embedding(token_ids[:, None])
        positions = self.lengths[:, None] if self.ragged else None
        self.lengths = self.lengths + 1
        if self.cache is not None:
            states = self.decoder.hidden_states(
                embeddings=embeddings, positions=positions, cache=self.cache, **self.model_inputs
            )
            return self.decoder.output(states)[:, -1]
        self.rows = [torch.cat([row, new]) for row, new in zip(self.rows, embeddings, strict=True)]
        return self.prefill()


def _check(prompts: Sequence[Tensor], sampling: Sampling, generator: Generators | None) -> None:
    if len(prompts) == 0 or any(len(prompt) == 0 for prompt in prompts):
        raise ValueError(
            f"prompts have lengths {[len(p) for p in prompts]}; expected at least one, each of at least one token "
            "(begin with the begin-of-text token)"
        )
    values_per_prompt = {
        "generators": generator,
        "values of max_new_tokens": sampling.max_new_tokens,
        "temperatures": sampling.temperature,
        "values of top_p": sampling.top_p,
    }
    for name, values in values_per_prompt.items():
        if isinstance(values, Sequence) and len(values) != len(prompts):
            raise ValueError(f"{len(values)} {name} for {len(prompts)} prompts; give one per prompt, or one for all")
