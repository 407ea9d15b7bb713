"""The base of models that generate text through a language model, whatever else their input contains."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from shared.attention import Mask
from shared.transformer.decoder import Decoder
from shared.transformer.generation import generate
from shared.transformer.kv_cache import KVCache
from shared.transformer.sampling import Sampling


@runtime_checkable
class EmbeddedPrompt(Protocol):
    """A batch of prompts as embeddings, with what else the model's `hidden_states` needs, such as positions."""

    @property
    def embeddings(self) -> Float[Tensor, "batch tokens width"]: ...

    @property
    def lengths(self) -> Int[Tensor, "batch"]: ...

    @classmethod
    def stack(cls, prompts: Sequence[Any]) -> "EmbeddedPrompt":
        """Return several prompts of one row each as one batch."""
        ...


class VisionLanguageModel(nn.Module):
    """Give `generate` the parts it uses from `language_model`; a subclass writes its own `hidden_states`.

    language_model  a decoder, whose embedding, output layer and cache are the model's own
    """

    language_model: Decoder

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding of the language model."""
        return self.language_model.embedding

    @property
    def output(self) -> nn.Linear:
        """The output layer of the language model."""
        return self.language_model.output

    def hidden_states(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the final hidden states [batch, tokens, width]; each subclass defines its arguments."""
        raise NotImplementedError(f"{type(self).__name__} defines no hidden_states")

    def new_cache(self, batch: int, capacity: int) -> KVCache:
        """Return an empty cache of the language model for `batch` rows of at most `capacity` tokens."""
        return self.language_model.new_cache(batch, capacity)


class PromptedModel(VisionLanguageModel):
    """A model whose positions do not count tokens: its `hidden_states` takes a `prompt` that translates places.

    A *place* counts the tokens of a row from 0, as generation does. The prompt gives the position of each place.
    """

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[EmbeddedPrompt], sampling: Sampling, *, use_cache: bool = True
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue prompts of one row each, as `prompt` returns them, and return their new token ids.

        Raises ValueError when there is no prompt.
        """
        if not prompts:
            raise ValueError("no prompts were given; answer needs at least one")
        rows = [prompt.embeddings[0, : int(prompt.lengths[0])] for prompt in prompts]
        batch = type(prompts[0]).stack(prompts)
        return generate(self, rows, sampling, use_cache=use_cache, model_inputs={"prompt": batch})

    @staticmethod
    def places_and_mask(
        embeddings: Float[Tensor, "batch tokens width"],
        places: Int[Tensor, "#batch tokens"] | None,
        segments: Int[Tensor, "#batch tokens"] | None,
        cache: KVCache | None,
    ) -> tuple[Int[Tensor, "#batch tokens"], Mask]:
        """Return the places of new tokens and their causal mask, and reserve places for them in the cache.

        places  None counts on from the cached tokens
        """
        tokens = embeddings.shape[1]
        if places is None:
            first = 0 if cache is None else cache.length
            places = torch.arange(first, first + tokens, device=embeddings.device)[None]
        if cache is None:
            return places, Mask(causal=True, segment_q=segments, segment_k=segments)
        return places, cache.reserve(tokens, segments)
