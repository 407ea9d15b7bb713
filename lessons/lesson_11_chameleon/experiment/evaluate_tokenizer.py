"""Measure an image tokenizer on held-out scenes: pixels, use of the codebook, and what the judge predicts."""

import torch
from jaxtyping import Float
from torch import Tensor

from data.toybox.heldout import TEST_SEED, sample_scenes
from data.toybox.tensors import render_tensors
from lessons.lesson_11_chameleon.experiment.tokenizer_training import OBJECTS
from lessons.lesson_11_chameleon.model.image_tokenizer import ImageTokenizer
from lessons.lesson_11_chameleon.model.quantizer import codebook_use, perplexity
from shared.judge import load_judge, score_images

BATCH_SIZE = 100


def psnr(
    images: Float[Tensor, "batch 3 size size"], expected: Float[Tensor, "batch 3 size size"]
) -> Float[Tensor, "batch"]:
    """Return the peak signal-to-noise ratio of each image in decibels, −10 log₁₀ MSE; pixels lie between 0 and 1.

    An image that is equal has an infinite ratio.
    """
    return -10 * (images - expected).square().mean(dim=(1, 2, 3)).log10()


@torch.inference_mode()
def measure_tokenizer(tokenizer: ImageTokenizer, split: str, count: int) -> dict[str, float]:
    """Return measurements on the reconstructions of `count` held-out scenes of a split.

    psnr, l1                             mean over the images, in decibels and in units of the pixel range
    use, perplexity                      of the codebook over all codes
    place, shape, color, size, texture, object, count, scene   the judge's accuracy on the reconstructions
    real_…                               the same on real renders: the best that a perfect tokenizer can get
    """
    scenes = sample_scenes(split, TEST_SEED, count, OBJECTS)
    expected = render_tensors(scenes, tokenizer.config.image_size).float() / 255
    codes = torch.cat([tokenizer.encode(batch) for batch in expected.split(BATCH_SIZE)])
    images = torch.cat([tokenizer.decode(batch) for batch in codes.split(BATCH_SIZE)])
    measured = {
        "psnr": float(psnr(images, expected).mean()),
        "l1": float((images - expected).abs().mean()),
        "use": codebook_use(codes, tokenizer.codebook_size),
        "perplexity": float(perplexity(codes, tokenizer.codebook_size)),
    }
    scores = score_images(load_judge(), images, scenes)
    measured |= {name: score.generated for name, score in scores.items()}
    return measured | {f"real_{name}": score.real for name, score in scores.items()}
