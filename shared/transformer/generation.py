"""Writing with a decoder: choose a token, read it, choose the next."""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared.attention import segments_of_ragged_batch
from shared.transformer.decoder import Decoder


@torch.no_grad()
def generate(
    decoder: Decoder,
    prompts: Sequence[Tensor],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
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

    Raises ValueError when there is no prompt, one is empty, or a setting is out of its range.
    """
    _check(prompts, max_new_tokens, temperature, top_k, top_p, generator)
    was_training = decoder.training
    decoder.eval()
    try:
        reader = _Reader(decoder, prompts, max_new_tokens, use_cache)
        written = [[] for _ in prompts]
        unfinished = set(range(len(prompts)))
        logits = reader.read_all()
        for step in range(max_new_tokens):
            tokens = sample(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            for row in list(unfinished):
                written[row].append(tokens[row].item())
                if written[row][-1] in stop_tokens:
                    unfinished.remove(row)
            if not unfinished or step == max_new_tokens - 1:
                break
            # Rows that have finished read on in step with the others; nobody looks at what they say.
            logits = reader.read(tokens)
    finally:
        decoder.train(was_training)
    return [torch.tensor(row, dtype=torch.long) for row in written]


def sample(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Int[Tensor, "batch"]:
    """One token for each row: a uniform number on the CPU picks the place in the cumulated probabilities.

    So the same seed gives the same text on every device.
    """
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = token_probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p).sort(
        dim=-1, descending=True, stable=True
    )
    batch = logits.shape[0]
    if generator is None or isinstance(generator, torch.Generator):
        uniform = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
    else:
        uniform = torch.stack([torch.rand(1, generator=each, dtype=torch.float64) for each in generator])
    cumulated = ranked.double().cumsum(-1)
    place = torch.searchsorted(cumulated, uniform.to(logits.device) * cumulated[:, -1:])
    return order.gather(-1, place).squeeze(-1)


def token_probabilities(
    logits: Float[Tensor, "batch vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "batch vocab"]:
    """The probabilities that tokens are sampled from: cooled or heated, then cut to the likeliest, adding up to 1."""
    logits = logits.float() / temperature
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # A token stays while those before it have not yet reached p: the likeliest one always does.
        before = ranked.cumsum(-1) - ranked
        probabilities = torch.zeros_like(ranked).scatter(-1, order, ranked.masked_fill(before >= top_p, 0.0))
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


class _Reader:
    """Feeds a batch of ragged prompts, then one token at a time, to the decoder; gives the logits of what follows.

    Prompts are padded at their ends. Padding is of segment −1, and a row's next token takes the position after its
    own last one, so that no row notices how long the others are.
    """

    def __init__(self, decoder: Decoder, prompts: Sequence[Tensor], max_new_tokens: int, use_cache: bool):
        device = decoder.embedding.weight.device
        self.decoder = decoder
        self.rows = [decoder.embedding(p.to(device)) if p.ndim == 1 else p.to(device) for p in prompts]
        self.lengths = torch.tensor([len(row) for row in self.rows], device=device)
        self.ragged = len({len(row) for row in self.rows}) > 1
        longest = max(len(row) for row in self.rows)
        self.cache = decoder.new_cache(len(prompts), longest + max_new_tokens - 1) if use_cache else None

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
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> None:
    if len(prompts) == 0 or any(len(prompt) == 0 for prompt in prompts):
        raise ValueError(
            f"prompts have lengths {[len(p) for p in prompts]}; expected at least one, each of at least one token "
            "(begin with the begin-of-text token)"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; expected 0 (the likeliest token) or above")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; expected at least 1, or None for no limit")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; expected a probability in (0, 1], or None for no limit")
    if isinstance(generator, Sequence) and len(generator) != len(prompts):
        raise ValueError(f"{len(generator)} generators for {len(prompts)} prompts; give one for each, or one for all")
