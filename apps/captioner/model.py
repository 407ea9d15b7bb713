"""The captioner: a vision encoder, one linear layer, and a language model with the image tokens as its prefix.

image [batch, 3, 96, 96] → 36 patches [batch, 36, 512] → linear → 36 image tokens [batch, 36, 128]
[ image tokens | <|begin|> a small red circle ] → decoder → logits [batch, text, 32,000] of the next token
"""

import dataclasses

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from apps.captioner.config import CaptionerConfig
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, next_token_loss
from lessons.lesson_01_vit.model import VisionTransformer
from shared.training import LossSum
from shared.transformer import Sampling, generate

GREEDY = Sampling(max_new_tokens=64)


class Captioner(nn.Module):
    """Image tokens precede the caption; every caption token attends to all of them and to the tokens before it."""

    def __init__(self, config: CaptionerConfig):
        super().__init__()
        self.config = config
        self.vision_encoder = VisionTransformer(config.vision)
        self.connector = nn.Linear(config.vision.width, config.language.width)
        self.language_model = LanguageModel(config.language)

    def image_tokens(
        self, pixels: UInt8[Tensor, "batch channels height width_px"]
    ) -> Float[Tensor, "batch image_tokens width"]:
        """Encode images as tokens of the language model's width: the class token if there is one, then the patches."""
        normalized = (pixels.to(self.connector.weight.dtype) / 255 - self.config.mean) / self.config.std
        return self.connector(self.vision_encoder.features(normalized))

    def forward(
        self, pixels: UInt8[Tensor, "batch channels height width_px"], token_ids: Int[Tensor, "batch text"]
    ) -> Float[Tensor, "batch text vocab"]:
        """Return the logits of the token after each caption token; a caption starts with the begin token.

        Padding is at the end of captions, where causal attention ignores it, so the causal mask is enough.
        """
        image_tokens = self.image_tokens(pixels)
        sequence = torch.cat([image_tokens, self.language_model.embedding(token_ids)], dim=1)
        states = self.language_model.hidden_states(embeddings=sequence)
        return self.language_model.output(states[:, image_tokens.shape[1] :])

    def prompts(
        self, pixels: UInt8[Tensor, "batch channels height width_px"], begin: int
    ) -> Float[Tensor, "batch prompt width"]:
        """Return the embeddings before a caption's first token: the image tokens and the begin token."""
        first = self.language_model.embedding(torch.full((len(pixels), 1), begin, device=pixels.device))
        return torch.cat([self.image_tokens(pixels), first], dim=1)

    def generate(
        self,
        pixels: UInt8[Tensor, "batch channels height width_px"],
        begin: int,
        end: int,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
    ) -> list[Int[Tensor, "new_tokens"]]:
        """Generate a caption for each image, without its begin and end tokens. Dropout is off meanwhile."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                prompts = list(self.prompts(pixels, begin))
                sampling = dataclasses.replace(sampling, stop_token_ids=(end,))
                captions = generate(self.language_model, prompts, sampling, generator=generator)
        finally:
            self.train(was_training)
        return [caption[caption != end] for caption in captions]


def caption_loss(
    model: Captioner,
    batch: tuple[UInt8[Tensor, "batch channels height width_px"], Int[Tensor, "batch text"], Int[Tensor, "batch text"]],
) -> LossSum:
    """Return the cross-entropy, in nats, of the caption tokens and the end tokens; image tokens do not count.

    The batch is (pixels, token ids, segments): a segment is 0 for a caption token and −1 for padding.
    """
    pixels, token_ids, segments = batch
    mean = next_token_loss(model(pixels, token_ids), token_ids, segments)
    return LossSum.of_mean(mean, has_previous_token(segments).sum())


def parameter_counts(model: Captioner) -> dict[str, int]:
    """Return the number of weights of each part, and of all."""
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in model.named_children()}
    return counts | {"all": sum(counts.values())}
