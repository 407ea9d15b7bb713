"""The captioner: an eye, one linear layer, and a language model that reads what the eye saw before it says a word.

image [batch, 3, 96, 96] → 36 patches [batch, 36, 512] → linear → 36 image tokens [batch, 36, 128]
[ image tokens | <|begin|> a small red circle ] → decoder → logits [batch, words, 32,000] of what follows each word
"""

import dataclasses

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from apps.captioner.config import CaptionerConfig
from lessons.lesson_00_foundations.decoder.model import LanguageModel, next_token_loss
from lessons.lesson_01_vit.model import VisionTransformer
from shared.transformer import Sampling, generate

GREEDY = Sampling(max_new_tokens=64)


class Captioner(nn.Module):
    """Image tokens in front, words behind; every word sees all of the image and the words before it."""

    def __init__(self, config: CaptionerConfig):
        super().__init__()
        self.config = config
        self.eye = VisionTransformer(config.eye)
        self.bridge = nn.Linear(config.eye.width, config.language.width)
        self.language = LanguageModel(config.language)

    def image_tokens(
        self, pixels: UInt8[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch seen width"]:
        """What the eye makes of pictures, in the language model's width: a token a patch, after the class token where it has one."""
        standardized = (pixels.to(self.bridge.weight.dtype) / 255 - self.config.mean) / self.config.deviation
        return self.bridge(self.eye.features(standardized))

    def forward(
        self, pixels: UInt8[Tensor, "batch channels height width_px"], tokens: Int[Tensor, "batch words"]
    ) -> Float[Tensor, "batch words vocab"]:
        """Logits of the word after each word; a caption begins with the token that begins every text.

        Padding is at the ends of captions: no word looks ahead, so none sees it, and no mask is needed but the causal one.
        """
        seen = self.image_tokens(pixels)
        read = torch.cat([seen, self.language.embedding(tokens)], dim=1)
        return self.language.output(self.language.hidden_states(embeddings=read)[:, seen.shape[1] :])

    def prompts(
        self, pixels: UInt8[Tensor, "batch channels height width_px"], begin: int
    ) -> Float[Tensor, "batch seen_and_begin width"]:
        """What stands before a caption's first word: the image tokens, and the token that begins every text."""
        first = self.language.embedding(torch.full((len(pixels), 1), begin, device=pixels.device))
        return torch.cat([self.image_tokens(pixels), first], dim=1)

    def write(
        self,
        pixels: UInt8[Tensor, "batch channels height width_px"],
        begin: int,
        end: int,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, "new_tokens"]]:
        """A caption for each picture, token by token, without its `begin` and its `end`."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                prompts = list(self.prompts(pixels, begin))
                sampling = dataclasses.replace(sampling, stop_token_ids=(end,))
                written = generate(self.language, prompts, sampling, generator=generator)
        finally:
            self.train(was_training)
        return [caption[caption != end] for caption in written]


def caption_loss(
    model: Captioner,
    batch: tuple[
        UInt8[Tensor, "batch channels height width_px"], Int[Tensor, "batch words"], Int[Tensor, "batch words"]
    ],
) -> Float[Tensor, ""]:
    """The mean surprise, in nats, at each word of the captions and at their ends; of the image nothing is asked.

    The batch is (pixels, tokens, segments): a segment is 0 for a word and −1 for padding.
    """
    pixels, tokens, segments = batch
    return next_token_loss(model(pixels, tokens), tokens, segments)


def parameters_by_part(model: Captioner) -> dict[str, int]:
    """How many weights each part has, and all of them."""
    counted = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in model.named_children()}
    return counted | {"all": sum(counted.values())}
