"""Images and videos, token by token, with classifier-free guidance (arXiv:2409.18869, section 3.1).

A guided step needs the logits of the same prefix with and without the caption (arXiv:2207.12598; for tokens
arXiv:2203.13131, section 3.6):

    logits = unconditional + scale · (conditional − unconditional)

Scale 1 is plain sampling, scale 0 ignores the caption, and a larger scale moves away from what the model would generate
without the caption. Both rows are decoded in one batch with one cache, and both continue with the same token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lessons.lesson_12_emu3.model.frames import CODE, END, END_OF_FRAME, END_OF_LINE, EOS, FrameGrid, token_kinds
from lessons.lesson_12_emu3.model.vocabulary import VisionVocabulary
from shared.attention import padded_segments
from shared.transformer import Decoder, Sampling, sample
from shared.transformer.sampling import Choose, Generators, constrained

# ── Guidance ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def guide_logits(
    conditional: Float[Tensor, "batch vocab"], unconditional: Float[Tensor, "batch vocab"], scale: float
) -> Float[Tensor, "batch vocab"]:
    """Return unconditional + scale · (conditional − unconditional) of log-probabilities, in 32 bits at least.

    Logits and log-probabilities differ by one number per row, which does not change the probabilities.
    """
    # exercise 12.6: classifier-free guidance
    dtype = torch.promote_types(conditional.dtype, torch.float32)
    conditional, unconditional = (logits.to(dtype).log_softmax(dim=-1) for logits in (conditional, unconditional))
    return unconditional + scale * (conditional - unconditional)
    # end exercise


# ── Constrained decoding ──────────────────────────────────────────────────────────────────────────────────────────────


class FrameConstraint:
    """Allow codes within rows and the one marker that is due elsewhere: the n-th token decides.

    Raises ValueError when the vocabulary lacks a marker.
    """

    def __init__(self, vocabulary: VisionVocabulary, grid: FrameGrid, batch: int):
        self.batch, self.place = batch, 0
        self.kinds = token_kinds(grid.frames, grid.rows, grid.columns).tolist()
        markers = vocabulary.markers
        due = {END_OF_LINE: markers.end_of_line, END_OF_FRAME: markers.end_of_frame, END: markers.end, EOS: markers.eos}
        tokens = torch.arange(vocabulary.vocab_size)
        self.by_kind = {kind: tokens == token_id for kind, token_id in due.items()} | {CODE: vocabulary.is_code()}

    def allowed(self) -> Bool[Tensor, "batch vocab"]:
        """Return whether each token may come next. Raises ValueError when the sequence has ended."""
        if self.place >= len(self.kinds):
            raise ValueError(f"the sequence ended after {len(self.kinds)} tokens; no token may come next")
        return self.by_kind[self.kinds[self.place]].expand(self.batch, -1)

    def advance(self, token_ids: Int[Tensor, "batch"]) -> None:
        """Append one token to each text."""
        self.place += 1


# ── Sampling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class VisionSampling:
    """How codes are sampled.

    guidance     scale of classifier-free guidance; 1 for none, which also needs no unconditional rows
    temperature  0 takes the most likely code
    top_k        sample among the k most likely codes only

    Raises ValueError for values out of range.
    """

    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int | None = 2048

    def __post_init__(self) -> None:
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}; expected a scale of at least 0, 1 for none")
        Sampling(max_new_tokens=1, temperature=self.temperature, top_k=self.top_k)


@torch.no_grad()
def generate_frames(
    decoder: Decoder,
    vocabulary: VisionVocabulary,
    prompts: Sequence[Tensor],
    unconditional: Sequence[Tensor],
    grid: FrameGrid,
    sampling: VisionSampling,
    generator: Generators | None = None,
) -> Int[Tensor, "batch tokens"]:
    """Continue each prompt, which ends with [SOT], by the frames of a grid; return the new tokens up to [EOS].

    prompts        token ids [length] each, of any lengths
    unconditional  for each prompt the one without its caption, or a caption to avoid; not used with a guidance of 1

    Raises ValueError for a prompt that is empty, has token ids out of range, does not end with [SOT], or does not fit
    the context with its frames, and for another number of unconditional prompts.
    """
    choose: Choose
    guided = sampling.guidance != 1
    _check(vocabulary, prompts, unconditional if guided else prompts, decoder.config.max_positions - grid.tokens)
    choose = partial(sample, temperature=sampling.temperature, top_k=sampling.top_k, generator=generator)
    choose = constrained(choose, FrameConstraint(vocabulary, grid, len(prompts)))
    was_training = decoder.training
    decoder.train(False)
    try:
        return _decode(decoder, [*prompts, *(unconditional if guided else [])], grid.tokens, choose, sampling.guidance)
    finally:
        decoder.train(was_training)


def _decode(
    decoder: Decoder, rows: Sequence[Tensor], steps: int, choose: Choose, scale: float
) -> Int[Tensor, "batch tokens"]:
    """Return the new tokens; `rows` are the prompts, and with guidance the unconditional prompts after them."""
    device = decoder.embedding.weight.device
    lengths = torch.tensor([len(row) for row in rows], device=device)
    token_ids = torch.nn.utils.rnn.pad_sequence([row.to(device) for row in rows], batch_first=True)
    segments = padded_segments(lengths.tolist()).to(device)
    positions = torch.arange(token_ids.shape[1], device=device)[None]
    cache = decoder.new_cache(len(rows), token_ids.shape[1] + steps - 1)
    states = decoder.hidden_states(token_ids, positions=positions, segments=segments, cache=cache)
    states = states[torch.arange(len(rows), device=device), lengths - 1]
    new_tokens: list[Tensor] = []
    while True:
        logits = decoder.output(states)
        if scale != 1:
            conditional, unconditional = logits.chunk(2)
            logits = guide_logits(conditional, unconditional, scale)
        new_tokens.append(choose(logits))
        if len(new_tokens) == steps:
            return torch.stack(new_tokens, dim=1)
        # Both rows of a pair continue with the same token.
        following = new_tokens[-1].repeat(1 if scale == 1 else 2)
        states = decoder.hidden_states(following[:, None], positions=lengths[:, None], cache=cache)[:, -1]
        lengths = lengths + 1


def _check(
    vocabulary: VisionVocabulary, prompts: Sequence[Tensor], unconditional: Sequence[Tensor], context: int
) -> None:
    if len(prompts) == 0 or len(prompts) != len(unconditional):
        raise ValueError(
            f"{len(prompts)} prompts and {len(unconditional)} unconditional prompts; expected one of each per image"
        )
    for row, prompt in enumerate([*prompts, *unconditional]):
        if len(prompt) == 0 or int(prompt[-1]) != vocabulary.markers.tokens:
            raise ValueError(
                f"prompt {row % len(prompts)} does not end with the token {vocabulary.markers.tokens}, after which the "
                "codes begin; write it with generation_prompt"
            )
        if not 0 <= int(prompt.min()) <= int(prompt.max()) < vocabulary.vocab_size:
            raise ValueError(
                f"prompt {row % len(prompts)} has token ids {int(prompt.min())} to {int(prompt.max())}; the vocabulary "
                f"has 0 to {vocabulary.vocab_size - 1}"
            )
        if len(prompt) > context:
            raise ValueError(
                f"prompt {row % len(prompts)} has {len(prompt)} tokens; with its frames the context has place for "
                f"{context}. Generate fewer codes or shorten the prompt"
            )
