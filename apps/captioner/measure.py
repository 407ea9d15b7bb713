"""How good captions are: true of their scenes, where one can know, and like those that people have written."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from apps.captioner.model import GREEDY, Captioner
from data.toybox.language import is_true
from data.toybox.scene import Scene
from shared.evaluation import score_captions
from shared.tokenizers import Tokenizer
from shared.transformer import Sampling


def written(
    model: Captioner,
    tokenizer: Tokenizer,
    pixels: UInt8[Tensor, "pictures 3 size size"],
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
) -> list[str]:
    """A caption for each image: the most likely token at each step, unless `sampling` sets a temperature.

    A preset's vocabulary may have rows that no token of this tokenizer has taken; a model that says one says nothing by it.
    """
    device = model.bridge.weight.device
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN_TOKEN, END_TOKEN))
    captions = []
    for some in pixels.split(batch_size):
        tokens = model.write(some.to(device), begin, end, sampling, generator)
        known = [[number for number in caption.tolist() if number < tokenizer.vocab_size] for caption in tokens]
        captions += [tokenizer.decode(caption, skip_special_tokens=True).strip() for caption in known]
    return captions


def share_true(captions: Sequence[str], scenes: Sequence[Scene]) -> float:
    """The share of captions that hold for their scenes: every thing named once, none that is not there."""
    return sum(is_true(text, scene) for text, scene in zip(captions, scenes, strict=True)) / len(scenes)


def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4, CIDEr and ROUGE-L of one caption for each picture."""
    return score_captions(dict(enumerate(captions)), dict(enumerate(references)))
