"""Train image tokenizers on scenes of the toy world: pixels, the quantizer's loss, features, a discriminator."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from data.toybox.heldout import sample_scenes
from data.toybox.tensors import render_tensors
from lessons.lesson_11_chameleon.model.discriminator import (
    PatchDiscriminator,
    adaptive_weight_of_losses,
    discriminator_loss,
    generator_loss,
)
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer, TokenizerConfig
from lessons.lesson_11_chameleon.model.perceptual_loss import PerceptualLoss
from lessons.lesson_11_chameleon.model.quantizer import perplexity
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, train
from shared.training.loop import TrainingResult

OBJECTS = (1, 5)
"""The least and the greatest number of objects of a scene."""


@dataclass(frozen=True)
class TokenizerRecipe:
    """The settings of a training run.

    config              the tokenizer
    scenes              training scenes, which hold seen combinations only
    exponent            of the pixels' absolute differences: 1 or 2
    perceptual          weight of the perceptual loss; 0 leaves it out
    adversarial         weight of the adversarial loss, times the adaptive weight; 0 leaves it out
    adversarial_start   fraction of the steps after which the adversarial loss is added
    """

    config: TokenizerConfig = field(default_factory=TokenizerConfig)
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-3
    scenes: int = 8000
    exponent: int = 2
    perceptual: float = 0.0
    adversarial: float = 0.0
    adversarial_start: float = 0.5
    seed: int = 0

    def training_config(self) -> TrainingConfig:
        """Return the settings of the training loop."""
        return TrainingConfig(
            self.steps,
            self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            warmup_steps=self.steps // 20,
            seed=self.seed,
            log_every=max(1, self.steps // 40),
            checkpoint_every=max(100, self.steps // 4),
        )


class AdversarialTokenizer(nn.Module):
    """A tokenizer and, with an adversarial loss, the discriminator that is trained beside it by the same optimizer."""

    def __init__(self, tokenizer: ImageTokenizer, discriminator: PatchDiscriminator | None):
        super().__init__()
        self.tokenizer, self.discriminator = tokenizer, discriminator


def training_images(recipe: TokenizerRecipe) -> UInt8[Tensor, "scenes 3 size size"]:
    """Render the training scenes."""
    scenes = sample_scenes("train", recipe.seed, recipe.scenes, OBJECTS)
    return render_tensors(scenes, recipe.config.image_size)


class PixelLoss:
    """Compute mean |difference|^exponent, relative to that of the training images' mean color.

    The quotient is about 1 before training, whatever the images are. So the commitment loss has the same weight for
    all images, as in arXiv:1711.00937's published code, which divides by the variance of the data.
    """

    def __init__(self, pixels: UInt8[Tensor, "scenes 3 size size"], exponent: int):
        sample = pixels[:500].float() / 255
        difference = (sample - sample.mean(dim=(0, 2, 3), keepdim=True)).abs()
        self.exponent, self.scale = exponent, float(difference.pow(exponent).mean())

    def __call__(
        self, images: Float[Tensor, "batch 3 size size"], expected: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, ""]:
        return (images - expected).abs().pow(self.exponent).mean() / self.scale


class TokenizerLoss:
    """Compute the loss of a batch (images, step), and its parts.

    The sum of three losses trains the tokenizer: pixels, perceptual loss and quantizer. The adversarial loss is added
    after a part of the steps, with the adaptive weight; from the first step on the discriminator's own loss is added,
    which has no gradient for the tokenizer.
    """

    def __init__(self, recipe: TokenizerRecipe, pixel_loss: PixelLoss, perceptual_loss: PerceptualLoss | None):
        self.recipe, self.pixel_loss, self.perceptual_loss = recipe, pixel_loss, perceptual_loss

    def __call__(self, model: AdversarialTokenizer, batch: tuple[Tensor, int]) -> tuple[Tensor, dict[str, Tensor]]:
        recipe, (pixels, step) = self.recipe, batch
        expected = pixels.float() / 255
        result = model.tokenizer(expected)
        reconstruction = self.pixel_loss(result.images, expected)
        parts = {"pixels": reconstruction, "quantizer": result.loss}
        if self.perceptual_loss is not None:
            parts["perceptual"] = self.perceptual_loss(result.images, expected).mean()
            reconstruction = reconstruction + recipe.perceptual * parts["perceptual"]
        loss = reconstruction + result.loss
        if model.discriminator is not None:
            parts["discriminator"] = discriminator_loss(model.discriminator, expected, result.images)
            loss = loss + parts["discriminator"]
            if step >= recipe.adversarial_start * recipe.steps:
                parts["adversarial"] = generator_loss(model.discriminator, result.images)
                last_layer = model.tokenizer.decoder.output.weight
                weight = adaptive_weight_of_losses(reconstruction, parts["adversarial"], last_layer)
                parts["adaptive_weight"] = weight
                loss = loss + recipe.adversarial * weight * parts["adversarial"]
        parts["perplexity"] = perplexity(result.codes, model.tokenizer.codebook_size)
        return loss, {name: value.detach() for name, value in parts.items()}


def train_tokenizer(
    recipe: TokenizerRecipe, run: RunOptions, evaluation: Evaluation | None = None
) -> tuple[ImageTokenizer, TrainingResult]:
    """Train a tokenizer; return it in evaluation mode, and the run's result.

    evaluation  its function is given the `AdversarialTokenizer`
    """
    torch.manual_seed(recipe.seed)
    discriminator = PatchDiscriminator() if recipe.adversarial else None
    model = AdversarialTokenizer(ImageTokenizer(recipe.config), discriminator)
    perceptual_loss = PerceptualLoss.from_clip() if recipe.perceptual else None
    pixels = training_images(recipe)
    batches = Batches(pixels, batch_size=recipe.batch_size, seed=recipe.seed)
    result = train(
        model,
        lambda index: (batches(index), index),
        TokenizerLoss(recipe, PixelLoss(pixels, recipe.exponent), perceptual_loss),
        recipe.training_config(),
        run=run,
        evaluation=evaluation,
    )
    assert isinstance(result.model, AdversarialTokenizer)
    return result.model.tokenizer.eval(), result
