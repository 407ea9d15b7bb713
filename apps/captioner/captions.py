"""Captions of images: generate them with a trained captioner, and score them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from apps.captioner.data import CaptionedImages
from apps.captioner.model import GREEDY, Captioner
from apps.captioner.run_folder import load_captioner
from data.datasets.image_folder import read_image
from shared.evaluation import score_captions
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN
from shared.transformer import Sampling


def generate_captions(
    model: Captioner,
    tokenizer: Tokenizer,
    pixels: UInt8[Tensor, "images 3 size size"],
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
) -> list[str]:
    """Return a caption for each image: the most likely token at each step, unless `sampling` sets a temperature.

    A preset's vocabulary may be larger than the tokenizer's; token ids without a token are left out.
    """
    device = model.connector.weight.device
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
    captions = []
    for batch in pixels.split(batch_size):
        for token_ids in model.generate(batch.to(device), begin, end, sampling, generator):
            defined = [token_id for token_id in token_ids.tolist() if token_id < tokenizer.vocab_size]
            captions.append(tokenizer.decode(defined, skip_special_tokens=True).strip())
    return captions


def caption_files(
    run: Path | str,
    files: Sequence[Path | str],
    *,
    device: str = "cpu",
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Return a caption for each image file. Raises CourseError when the run or an image cannot be read."""
    model, tokenizer = load_captioner(run, device)
    size = model.config.vision.image_sides[0]
    pixels = torch.from_numpy(np.stack([read_image(Path(file), size) for file in files])).permute(0, 3, 1, 2)
    return generate_captions(model, tokenizer, pixels, sampling=sampling, generator=generator)


def score_captions_of(captions: list[str], images: CaptionedImages) -> dict[str, float]:
    """Return BLEU-1 to BLEU-4, CIDEr and ROUGE-L of one caption per image."""
    return score_captions(dict(enumerate(captions)), dict(enumerate(images.captions)))
