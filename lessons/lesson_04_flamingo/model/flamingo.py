"""Flamingo: a frozen eye and a frozen language model, and what learns between them (arXiv:2204.14198, figure 3)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_01_vit.model import VisionTransformer
from lessons.lesson_04_flamingo.model import config_mapping
from lessons.lesson_04_flamingo.model.config import FlamingoConfig
from lessons.lesson_04_flamingo.model.gated import GatedCrossAttention
from lessons.lesson_04_flamingo.model.resampler import PerceiverResampler
from lessons.lesson_04_flamingo.model.sequences import media_mask
from lessons.lesson_04_flamingo.model.weight_names import idefics_table
from shared.attention import Mask
from shared.pretrained import load_weights, save_pretrained
from shared.training import Stage
from shared.transformer import Decoder, KVCache, Sampling, generate, positions_within_segments


class Flamingo(nn.Module):
    """Images become latents; between the blocks of a language model, each token looks at those of its latest image.

    vision    the eye; its `hidden_states(images)` gives the tokens before and after every block, of which the last are taken
    language  any Llama of the course

    What learns takes image *features* [batch, images, patches, width]: a frozen eye need look at each image only once.
    Raises ValueError when the inserted layers don't divide the language model's blocks evenly.
    """

    def __init__(self, config: FlamingoConfig, vision: nn.Module, language: LanguageModel):
        super().__init__()
        layers = language.config.depth
        if layers % config.every:
            raise ValueError(f"a cross-attention before every {config.every} blocks does not fit {layers} blocks")
        self.config, self.vision, self.language = config, vision, language
        self.resampler = PerceiverResampler(config.resampler)
        self.inserted = nn.ModuleList(
            GatedCrossAttention(config, language.config) for _ in range(layers // config.every)
        )

    def media(
        self, features: Float[Tensor, "batch images patches width"]
    ) -> Float[Tensor, "batch images latents width"]:
        """Every image's latents: as many, whatever its number of patches."""
        return self.resampler(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def look(
        self, images: Float[Tensor, "batch images channels height width_px"]
    ) -> Float[Tensor, "batch images latents width"]:
        """As `media`, from the images themselves."""
        features = self.vision.hidden_states(images.flatten(0, 1))[-1]
        return self.media(features.unflatten(0, images.shape[:2]))

    def forward(
        self,
        tokens: Int[Tensor, "batch tokens"],
        media: Float[Tensor, "batch images latents width"],
        looks: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the token after each token.

        looks     which image of its row each token looks at; −1 for none (sequences.py)
        segments  which document of its row each token belongs to; −1 is padding
        """
        x = self.language.embedding(tokens)
        if segments is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        else:
            positions = positions_within_segments(segments)
        mask = Mask(causal=True, segment_q=segments, segment_k=segments)
        return self.language.output(self.read(x, media, looks, positions, mask))

    def read(
        self,
        x: Float[Tensor, "batch tokens width"],
        media: Float[Tensor, "batch images latents media_width"],
        looks: Int[Tensor, "batch tokens"],
        positions: Int[Tensor, "#batch tokens"],
        mask: Mask,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """The frozen blocks in turn, with the inserted ones before every `every`-th: the vectors that make the logits."""
        seen = media_mask(looks, *media.shape[1:3])
        media, angles = media.flatten(1, 2), self.language.rotary(positions[..., None])
        for layer, block in enumerate(self.language.blocks):
            if layer % self.config.every == 0:
                x = self.inserted[layer // self.config.every](x, media, seen)
            x = block(x, mask=mask, angles=angles, cache=None if cache is None else cache[layer])
        return self.language.norm(x)

    @torch.no_grad()
    def answer(
        self,
        prompts: Sequence[Tensor],
        media: Float[Tensor, "batch images latents width"],
        looks: Sequence[Tensor],
        sampling: Sampling,
        *,
        use_cache: bool = True,
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Continue each prompt (tokens [length], any lengths); what is written looks at the prompt's last image.

        looks  for each prompt, which of its row of `media` each token looks at
        """
        return generate(_Looking(self, media, looks), prompts, sampling, use_cache=use_cache)

    # ── Published checkpoints ─────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Flamingo":
        """A published `IdeficsForVisionText2Text`, in evaluation mode. Raises CourseError when it holds another model."""
        config, vision, language, added = config_mapping.read_idefics(folder)
        model = cls(config, VisionTransformer(vision), LanguageModel(language))
        load_weights(model, folder, idefics_table(config, vision, language.vocab_size - added, added))
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, added: int = 0) -> None:
        """Write the folder that `IdeficsForVisionText2Text` reads.

        added  how many tokens at the end of the vocabulary were added to the language model's own (`<image>` and its like):
               the published class keeps their vectors apart, because they learn while the others are frozen

        Raises CourseError when no published class is such a model.
        """
        language = self.language.config
        written = config_mapping.write_idefics(self.config, self.vision, language, added)
        table = idefics_table(self.config, self.vision.config, language.vocab_size - added, added)
        save_pretrained(folder, self, table, written)


class _Looking(Decoder):
    """A Flamingo and the images of one batch, as a decoder that `generate` can write with.

    The first tokens that it reads are the prompts', of which it is known where they look; whatever comes later looks at the last.
    """

    def __init__(self, model: Flamingo, media: Tensor, looks: Sequence[Tensor]):
        nn.Module.__init__(self)
        language = model.language
        self.model, self.blocks, self.norm = model, language.blocks, language.norm
        self.embedding, self.output = language.embedding, language.output
        self.prompt_looks = nn.utils.rnn.pad_sequence(list(looks), batch_first=True, padding_value=-1).to(media.device)
        self.last_looks = torch.stack([row[-1] for row in looks])[:, None].to(media.device)
        self.seen = media

    def hidden_states(
        self,
        token_ids: Int[Tensor, "batch tokens"] | None = None,
        *,
        positions: Int[Tensor, "#batch tokens"] | None = None,
        segments: Int[Tensor, "#batch tokens"] | None = None,
        embeddings: Float[Tensor, "batch tokens width"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        if cache is None or token_ids is not None:
            raise ValueError("with images a text is written with a cache, from vectors; call Flamingo to read tokens")
        new = embeddings.shape[1]
        looks = self.last_looks if cache.length else self.prompt_looks
        if positions is None:
            positions = torch.arange(cache.length, cache.length + new, device=embeddings.device)[None]
        return self.model.read(embeddings, self.seen, looks, positions, cache.reserve(new, segments), cache)


def text_loss(
    logits: Float[Tensor, "batch tokens vocab"],
    tokens: Int[Tensor, "batch tokens"],
    asked: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, ""]:
    """The mean surprise, in nats, at the tokens that are `asked`, each after those before it.

    Ask for words: not for padding, not for a row's first token, and not for `<image>`, which is put there and not written.
    """
    # exercise 4.6: the surprise at what is asked
    asked = asked[:, 1:]
    return F.cross_entropy(logits[:, :-1][asked], tokens[:, 1:][asked])
    # end exercise


def words_of(
    tokens: Int[Tensor, "batch tokens"], segments: Int[Tensor, "batch tokens"], image_token: int
) -> Bool[Tensor, "batch tokens"]:
    """Which tokens a model can be asked for: words that follow another token of their document."""
    inside = torch.zeros_like(tokens, dtype=torch.bool)
    inside[:, 1:] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    return inside & (tokens != image_token)


def training_stage(steps: int) -> tuple[Stage, ...]:
    """The only stage: resampler and inserted layers learn, eye and language model stay as they are (section 2.2)."""
    return (Stage(steps, ("resampler.*", "inserted.*")),)
