"""What must hold to the bit, or to rounding, before anything is trained."""

from pathlib import Path
from random import Random

import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_04_flamingo import reference
from lessons.lesson_04_flamingo.model import Flamingo, FlamingoConfig, ResamplerConfig, latest_image, sees
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

ROWS, _ = reference.filled([reference.document(labels) for labels in ([3, 1], [7, 8], [0, 6])])


@torch.no_grad()
def check_mechanism(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict[str, float]:
    """Differences between things that the lesson says are the same (only seed is used)."""
    torch.manual_seed(seed)
    model = small_flamingo()
    features = torch.randn(len(ROWS) * 2, 9, 22, dtype=torch.float64)
    tokens = torch.tensor(ROWS)
    looks = latest_image(tokens, torch.zeros_like(tokens), reference.IMAGE)
    media = model.media(features.unflatten(0, (len(ROWS), 2)))
    closed = (model(tokens, media, looks) != model.language(tokens)).sum().item()

    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    plain = reference.build(small_language(seed), Random(seed))
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    media = model.media(features.unflatten(0, (len(ROWS), 2)))
    there = model(tokens, media, looks)
    here = plain(ROWS, to_stdlib(features))
    mask = to_torch(reference.media_mask([reference.latest_images(row) for row in ROWS], 2, 3))[:, 0] == 0
    sizes = {model.media(torch.randn(1, 1, patches, 22, dtype=torch.float64)).shape[2] for patches in (4, 16, 64, 256)}
    return {
        "closed_gates_changed": float(closed),
        "logit_difference": max_abs_difference(to_torch(here), there),
        "mask_difference": float((mask != sees(looks, 2, 3)).sum().item()),
        "latent_counts": float(len(sizes)),
    }


def small_language(seed: int) -> reference.LanguageModel:
    sizes = reference.WIDTH, reference.LAYERS, reference.HEADS, reference.HIDDEN_WIDTH
    return reference.LanguageModel(*sizes, Random(seed))


def small_flamingo() -> Flamingo:
    """The PyTorch model of the reference's sizes, in float64."""
    config = ResamplerConfig(
        22, reference.LATENTS, reference.DEPTH, reference.RESAMPLER_HEADS, reference.HEAD_DIM, qk_norm=False
    )
    language = DecoderConfig(
        reference.VOCABULARY, reference.WIDTH, reference.LAYERS, reference.HEADS, reference.HEADS, reference.HIDDEN_WIDTH,
        rotary_base=10_000.0,
    )  # fmt: skip
    return Flamingo(
        FlamingoConfig(config, every=1, qk_norm=False), torch.nn.Identity(), LanguageModel(language)
    ).double()
