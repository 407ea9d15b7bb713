"""Interleaved generation: text, and images of exactly n codes between a begin and an end token.

A model that samples freely may end an image early or write text inside it, and such a row is no image. Constrained
decoding excludes these tokens at every step. Each row has a state: −1 outside of images, else the number of codes
since the begin token.

    state −1          text and the begin token
    state 0 … n − 1   codes
    state n           the end token
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lessons.lesson_11_chameleon.model.vocabulary import ImageVocabulary, codes_of_token_ids
from shared.transformer import Decoder, Sampling, generate
from shared.transformer.sampling import Generators, per_prompt

States = Int[Tensor, "batch"]


# ── States ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def next_states(states: States, token_ids: States, begin: int, end: int) -> States:
    """Return the states of rows after one more token each, as the table at the top of this file defines them.

    begin   the state becomes 0, whatever it was
    end     the state becomes −1
    others  the state grows by 1 inside an image, and stays −1 outside
    """
    # exercise 11.8: the state after a token
    inside = torch.where(token_ids == end, -1, states + 1)
    after = torch.where(states < 0, -1, inside)
    return torch.where(token_ids == begin, 0, after)
    # end exercise


def allowed_tokens(
    states: States, tokens_left: States, is_code: Bool[Tensor, "vocab"], markers: tuple[int, int], image_tokens: int
) -> Bool[Tensor, "batch vocab"]:
    """Return whether each token may come next, given the state of each row (the table at the top of this file).

    Outside of images these are all tokens but codes and `end`; `begin` only if the image and both markers still fit.

    tokens_left   number of tokens that each row may still have, the next one included
    is_code       whether each token is that of a code
    markers       the begin and the end token
    image_tokens  number of codes of an image, without the two markers
    """
    # exercise 11.9: constrained decoding
    begin, end = markers
    text = ~is_code
    text[end] = False
    is_end = torch.zeros_like(is_code)
    is_end[end] = True
    states = states[:, None]
    allowed = torch.where(states < 0, text, torch.where(states < image_tokens, is_code, is_end))
    allowed[:, begin] &= tokens_left >= image_tokens + 2
    return allowed
    # end exercise


class TextOnly:
    """Allow every token but codes, as the published class does: begin and end tokens are not excluded there."""

    def __init__(self, vocabulary: ImageVocabulary, batch: int):
        self._allowed = ~vocabulary.is_code().expand(batch, -1)

    def allowed(self) -> Bool[Tensor, "batch vocab"]:
        return self._allowed

    def advance(self, token_ids: Int[Tensor, "batch"]) -> None:
        """Do nothing: what is allowed does not depend on the text."""


class ImageSpans:
    """Allow exactly one image's codes between begin and end, and none outside. Placeholders are excluded too.

    Raises ValueError when a prompt's images do not follow these rules, when a prompt ends within an image that cannot
    be completed in its new tokens, and when a text would end with a code.
    """

    def __init__(self, vocabulary: ImageVocabulary, prompts: Sequence[Tensor], sampling: Sampling):
        self.vocabulary, self.markers = vocabulary, vocabulary.markers()
        self.is_code = vocabulary.is_code()
        if codes := sorted(set(sampling.stop_token_ids) & set(vocabulary.code_token_ids)):
            raise ValueError(
                f"the stop tokens {codes} are codes, so that images would end early; stop at text or at end"
            )
        self.states = torch.tensor([self._state(prompt.tolist(), row) for row, prompt in enumerate(prompts)])
        self.tokens_left = torch.tensor(per_prompt(sampling.max_new_tokens, len(prompts)))
        missing = torch.where(self.states < 0, 0, vocabulary.image_tokens + 1 - self.states)
        if (missing > self.tokens_left).any():
            row = int((missing > self.tokens_left).nonzero()[0])
            raise ValueError(
                f"prompt {row} ends within an image that lacks {int(missing[row])} tokens, its end token included; "
                f"max_new_tokens is {int(self.tokens_left[row])}"
            )

    def _state(self, prompt: list[int], row: int) -> int:
        """Return the state after a prompt."""
        (begin, end), expected, state = self.markers, self.vocabulary.image_tokens, -1
        for place, token_id in enumerate(prompt):
            is_code = bool(self.is_code[token_id])
            if state < 0:
                wrong = is_code or token_id == end
            else:
                wrong = not is_code if state < expected else token_id != end
            if wrong:
                where = "outside of an image" if state < 0 else f"after {state} of an image's {expected} codes"
                raise ValueError(f"prompt {row} has token id {token_id} at place {place}, {where}; complete each image")
            state = 0 if token_id == begin else -1 if state < 0 or token_id == end else state + 1
        return state

    def allowed(self) -> Bool[Tensor, "batch vocab"]:
        allowed = allowed_tokens(
            self.states, self.tokens_left, self.is_code, self.markers, self.vocabulary.image_tokens
        )
        if self.vocabulary.placeholder is not None:
            allowed[:, self.vocabulary.placeholder] = False
        return allowed

    def advance(self, token_ids: Int[Tensor, "batch"]) -> None:
        self.states = next_states(self.states, token_ids.to(self.states.device), *self.markers)
        self.tokens_left = self.tokens_left - 1


@torch.no_grad()
def generate_mixed(
    decoder: Decoder,
    vocabulary: ImageVocabulary,
    prompts: Sequence[Tensor],
    sampling: Sampling,
    *,
    text_only: bool = False,
    generator: Generators | None = None,
    use_cache: bool = True,
) -> list[Int[Tensor, "new_tokens"]]:
    """Continue each prompt by text and complete images; `split_spans` separates them.

    prompts    token ids [length] each, of text and codes, of any lengths
    text_only  exclude the codes at every step, as the published class does
    generator  and `use_cache` are those of `shared.transformer.generate`

    Raises ValueError for a prompt that does not fit the context with its new tokens, that has placeholders or token ids
    out of range, or whose images are incomplete in its middle or cannot be completed in the new tokens.
    """
    check_prompts(prompts, sampling, vocabulary, decoder.config.max_positions)
    constraint: ImageSpans | TextOnly
    if text_only:
        constraint = TextOnly(vocabulary, len(prompts))
    else:
        constraint = ImageSpans(vocabulary, prompts, sampling)
    return generate(decoder, prompts, sampling, generator=generator, use_cache=use_cache, constraint=constraint)


# ── Prompts and results ───────────────────────────────────────────────────────────────────────────────────────────────


def check_prompts(prompts: Sequence[Tensor], sampling: Sampling, vocabulary: ImageVocabulary, context: int) -> None:
    """Raise ValueError for a prompt that does not fit the context with its new tokens, or has unusable token ids.

    context  number of positions that the model was trained with
    """
    limits = per_prompt(sampling.max_new_tokens, len(prompts))
    if len(limits) != len(prompts):
        raise ValueError(f"{len(limits)} values of max_new_tokens for {len(prompts)} prompts; give one per prompt")
    for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        if len(prompt) + limit > context:
            raise ValueError(
                f"prompt {row} has {len(prompt)} tokens and may get {limit} more; the context is {context} tokens. "
                "Shorten the prompt or lower max_new_tokens"
            )
        if len(prompt) and not 0 <= int(prompt.min()) <= int(prompt.max()) < vocabulary.vocab_size:
            raise ValueError(
                f"prompt {row} has token ids {int(prompt.min())} to {int(prompt.max())}; the vocabulary has 0 to "
                f"{vocabulary.vocab_size - 1}"
            )
        if vocabulary.placeholder is not None and (prompt == vocabulary.placeholder).any():
            raise ValueError(f"prompt {row} has placeholders of an image; replace them by codes (insert_images)")


@dataclass(frozen=True)
class Span:
    """Hold a part of a sequence: the token ids of some text, or the codes of one image."""

    kind: Literal["text", "image"]
    values: Int[Tensor, "tokens"]


def split_spans(token_ids: Int[Tensor, "tokens"], vocabulary: ImageVocabulary) -> list[Span]:
    """Return the texts and complete images of a sequence in order, without begin and end tokens.

    Raises ValueError for an image that is not complete and for codes outside of an image.
    """
    begin, end = vocabulary.markers()
    lookup = torch.tensor(vocabulary.code_token_ids, device=token_ids.device)
    codes = codes_of_token_ids(token_ids, lookup, vocabulary.vocab_size)
    spans: list[Span] = []
    start, length = 0, vocabulary.image_tokens
    for place in [*(token_ids == begin).nonzero().flatten().tolist(), len(token_ids)]:
        text = token_ids[start:place]
        if (codes[start:place] >= 0).any() or (text == end).any():
            raise ValueError(f"the tokens {start} to {place - 1} have codes or end tokens outside of an image")
        if len(text):
            spans.append(Span("text", text))
        if place == len(token_ids):
            break
        image, last = codes[place + 1 : place + 1 + length], token_ids[place + 1 + length : place + 2 + length]
        if len(last) == 0 or int(last) != end or (image < 0).any():
            raise ValueError(
                f"the image that begins at token {place} has no {length} codes and an end token after them"
            )
        spans.append(Span("image", image))
        start = place + 2 + length
    return spans
