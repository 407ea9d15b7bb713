"""The arm for a GPU: CLIP from scratch on Flickr8k, photographs with five captions each.

Eight thousand photographs are few: the paper used fifty thousand times as many. Measured is how often a held-out
photograph retrieves its caption, and a caption its photograph, among all held-out ones.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from data.datasets.captioned_folder import CaptionedImages, flickr8k
from lessons.lesson_02_clip.experiment.evaluate import encode
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.preprocessing import MEAN, STD
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from lessons.lesson_02_clip.model.zero_shot import recall_at
from shared.course.context import RunContext
from shared.training import Batches, Evaluation, TrainingConfig, curve_from_history, train

CONTEXT_LENGTH = 48
MERGES = 4000


@dataclass(frozen=True)
class PhotographRecipe:
    """Describe how CLIP is trained on photographs, which are resized to `image_size` pixels per side."""

    steps: int
    batch_size: int
    image_size: int
    precision: Literal["float32", "bfloat16"]
    compiled: bool


def train_flickr8k(context: RunContext, *, architecture: dict[str, int], **recipe: Any) -> dict:
    """Train CLIP on photographs and captions; measure retrieval in both directions on held-out ones.

    `architecture` holds `patch_size`, `width` and `depth` of the encoders, `recipe` the fields of `PhotographRecipe`.
    """
    settings, width, depth = PhotographRecipe(**recipe), architecture["width"], architecture["depth"]
    torch.manual_seed(context.seed)
    dataset = flickr8k(settings.image_size)
    texts = [text for captions in dataset.train_captions for text in captions]
    tokenizer = CLIPTokenizer.train(texts, MERGES, context_length=CONTEXT_LENGTH)
    sizes = {"width": width, "depth": depth, "heads": width // 64 or 1, "mlp_dim": 4 * width, "activation": "gelu"}
    image = clip_vision_config(
        image_size=settings.image_size, patch_size=architecture["patch_size"], drop_path=0.1, **sizes
    )
    text = TextEncoderConfig(
        vocab_size=len(tokenizer.vocab), context_length=CONTEXT_LENGTH, end_token=tokenizer.end, **sizes
    )
    images, token_ids = to_tensors(dataset.train_images, dataset.train_captions, tokenizer)
    batches = Batches(
        images.to(context.device),
        token_ids.to(context.device),
        batch_size=settings.batch_size,
        seed=context.seed,
        augment=augment,
    )
    steps = settings.steps
    config = TrainingConfig(
        steps=steps,
        learning_rate=2e-3,
        optimizer="muon",
        weight_decay=0.2,
        warmup_steps=steps // 20,
        betas=(0.9, 0.98),
        precision=settings.precision,
        compile=settings.compiled,
        seed=context.seed,
        log_every=max(1, steps // 50),
        checkpoint_every=max(1, steps // 10),
    )
    result = train(
        CLIP(CLIPConfig(image, text, embedding=width)),
        batches,
        lambda model, batch: model.loss(model.encode_images(batch[0]), model.encode_texts(batch[1])),
        config,
        run=context.run_options(),
        evaluation=Evaluation(lambda model: retrieval(model, dataset, tokenizer), every=max(1, steps // 10)),
    )
    return {
        **retrieval(result.model, dataset, tokenizer),
        "chance": 1 / len(dataset.test_images),
        "loss_curve": curve_from_history(result.history, "loss"),
        "text_to_image_curve": curve_from_history(result.history, "evaluation/text_to_image_at_5"),
    }


def to_tensors(
    images: np.ndarray, captions: tuple[tuple[str, ...], ...], tokenizer: CLIPTokenizer
) -> tuple[Tensor, Int[Tensor, "images captions tokens"]]:
    """Return pixels, channels first, and as many captions per image as the image with the fewest has."""
    count = min(map(len, captions))
    rows = tokenizer([text for image_captions in captions for text in image_captions[:count]], truncate=True)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), rows.unflatten(0, (len(captions), count))


def augment(batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
    """Crop and standardize the images of a batch, and choose one caption per image."""
    pixels, captions = batch
    choice = torch.randint(captions.shape[1], (len(captions),), generator=generator, device=captions.device)
    rows = torch.arange(len(captions), device=choice.device)
    return random_crop(standardize(pixels), generator), captions[rows, choice]


def standardize(pixels: Tensor) -> Float[Tensor, "batch 3 height width_px"]:
    """Standardize pixels in 0…255 as CLIP's preprocessing does."""
    mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def random_crop(
    images: Float[Tensor, "batch 3 height width_px"], generator: Generator
) -> Float[Tensor, "batch 3 height width_px"]:
    """Crop a random square of 60 to 100 % of each image's sides: the paper's only augmentation (section 2.3)."""
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator, device=images.device)

    side = uniform(0.6, 1.0)
    x, y = ((1 - side) * uniform(-1.0, 1.0) for _ in range(2))
    zero = torch.zeros_like(side)
    transforms = torch.stack([torch.stack([side, zero, x], dim=1), torch.stack([zero, side, y], dim=1)], dim=1)
    sampling_grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
    return F.grid_sample(images, sampling_grid, align_corners=False)


@torch.no_grad()
def retrieval(model: CLIP, dataset: CaptionedImages, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Return recall at 1 and 5 in both directions on held-out photographs, each with its first caption."""
    device = model.log_scale.device
    pixels, token_ids = to_tensors(dataset.test_images, dataset.test_captions, tokenizer)
    images = encode(model.encode_images, standardize(pixels), device)
    texts = encode(model.encode_texts, token_ids[:, 0], device)
    matches = torch.arange(len(images))
    return {
        f"{direction}_at_{k}": recall_at(k, similarity, matches).item()
        for direction, similarity in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T))
        for k in (1, 5)
    }
