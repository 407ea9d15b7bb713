"""The arm for a GPU: towers from scratch on photographs that people have described, five captions each (Flickr8k).

Eight thousand photographs are few: the paper had fifty thousand times as many. What is measured is how often a held-out
photograph finds one of its captions, and a caption its photograph, among all that are held out.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from data.datasets.captioned_folder import CaptionedImages, flickr8k
from lessons.lesson_02_clip.experiment.measure import encoded
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.preprocessing import DEVIATION, MEAN
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from lessons.lesson_02_clip.model.zero_shot import recall_at
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

CONTEXT = 48
MERGES = 4000


def train_photographs(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int, batch_size: int, image_size: int,
    patch_size: int, width: int, depth: int, precision: str, compiled: bool,
) -> dict:  # fmt: skip
    """Train two towers on photographs and captions; measure retrieval both ways on held-out ones."""
    torch.manual_seed(seed)
    found = flickr8k(image_size)
    tokenizer = CLIPTokenizer.train(
        [text for captions in found.train_captions for text in captions], MERGES, context_length=CONTEXT
    )
    sizes = {"width": width, "depth": depth, "heads": width // 64 or 1, "mlp_dim": 4 * width, "activation": "gelu"}
    model = CLIP(
        CLIPConfig(
            clip_vision_config(image_size=image_size, patch_size=patch_size, drop_path=0.1, **sizes),
            TextEncoderConfig(
                vocab_size=len(tokenizer.vocab), context_length=CONTEXT, end_token=tokenizer.end, **sizes
            ),
            embedding=width,
        )
    )
    images, tokens = as_tensors(found.train_images, found.train_captions, tokenizer)

    def augment(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        pixels, captions = batch
        which = torch.randint(captions.shape[1], (len(captions),), generator=generator, device=captions.device)
        return cropped(standardize(pixels), generator), captions[
            torch.arange(len(captions), device=which.device), which
        ]

    batches = Batches(images.to(device), tokens.to(device), batch_size=batch_size, seed=seed, augment=augment)
    config = TrainingConfig(
        steps=steps, learning_rate=2e-3, optimizer="muon", weight_decay=0.2, warmup_steps=steps // 20, betas=(0.9, 0.98),
        precision=precision, compile=compiled, seed=seed, log_every=max(1, steps // 50), checkpoint_every=max(1, steps // 10),
    )  # fmt: skip
    result = train(
        model,
        batches,
        lambda model, batch: model.loss(model.encode_images(batch[0]), model.encode_texts(batch[1])),
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(lambda model: retrieval_of(model, found, tokenizer), every=max(1, steps // 10)),
    )
    return {
        **retrieval_of(result.model, found, tokenizer),
        "chance": 1 / len(found.test_images),
        "loss_curve": curve_from_history(result.history, "loss"),
        "text_to_image_curve": curve_from_history(result.history, "evaluation/text_to_image_at_5"),
    }


def as_tensors(
    images: np.ndarray, captions: tuple[tuple[str, ...], ...], tokenizer: CLIPTokenizer
) -> tuple[Tensor, Int[Tensor, "images captions tokens"]]:
    """Bytes, channels first, and as many captions of each picture as the one with the fewest has."""
    fewest = min(map(len, captions))
    rows = tokenizer([text for own in captions for text in own[:fewest]], truncate=True)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), rows.unflatten(0, (len(captions), fewest))


def standardize(pixels: Tensor) -> Float[Tensor, "batch 3 height width_px"]:
    """Bytes as CLIP's own preprocessing leaves them."""
    mean, deviation = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (pixels.float() / 255 - mean) / deviation


def cropped(
    images: Float[Tensor, "batch 3 height width_px"], generator: torch.Generator
) -> Float[Tensor, "batch 3 height width_px"]:
    """A square of 60 to 100 % of each picture's sides, anywhere in it: the paper's only augmentation (section 2.3)."""
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator, device=images.device)

    side = uniform(0.6, 1.0)
    x, y = ((1 - side) * uniform(-1.0, 1.0) for _ in range(2))
    zero = torch.zeros_like(side)
    moves = torch.stack([torch.stack([side, zero, x], dim=1), torch.stack([zero, side, y], dim=1)], dim=1)
    return F.grid_sample(images, F.affine_grid(moves, list(images.shape), align_corners=False), align_corners=False)


@torch.no_grad()
def retrieval_of(model: CLIP, found: CaptionedImages, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """Recall on held-out photographs, each with its first caption."""
    device = model.log_scale.device
    pixels, tokens = as_tensors(found.test_images, found.test_captions, tokenizer)
    images, texts = (
        encoded(model.encode_images, standardize(pixels), device),
        encoded(model.encode_texts, tokens[:, 0], device),
    )
    own = torch.arange(len(images))
    return {
        f"{way}_at_{k}": recall_at(k, similarity, own).item()
        for way, similarity in (("image_to_text", images @ texts.T), ("text_to_image", texts @ images.T))
        for k in (1, 5)
    }
