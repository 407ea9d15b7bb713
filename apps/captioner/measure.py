"""How good captions are: true of their scenes, where one can know, and like those that people have written."""

from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from apps.captioner.model import Captioner
from data.toybox.language import is_true
from data.toybox.scene import Scene
from shared.evaluation import score_captions
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import BEGIN_TOKEN, END_TOKEN


def written(
    model: Captioner,
    tokenizer: Tokenizer,
    pixels: UInt8[Tensor, "pictures 3 size size"],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    **sampling,
) -> list[str]:
    """A caption for each picture: the likeliest word at a time, or drawn with a `temperature` and the like (see `generate`).

    A preset's vocabulary may have rows that no token of this tokenizer has taken; a model that says one says nothing by it.
    """
    device = model.bridge.weight.device
    begin, end = (tokenizer.special_tokens[name] for name in (BEGIN, END))
    captions = []
    for some in pixels.split(batch_size):
        tokens = model.write(some.to(device), begin, end, max_new_tokens=max_new_tokens, **sampling)
        known = [[number for number in caption.tolist() if number < tokenizer.vocab_size] for caption in tokens]
        captions += [tokenizer.decode(caption, skip_special_tokens=True).strip() for caption in known]
    return captions


def share_true(captions: Sequence[str], scenes: Sequence[Scene]) -> float:
    """The share of captions that hold for their scenes: every thing named once, none that is not there."""
    return sum(is_true(text, scene) for text, scene in zip(captions, scenes, strict=True)) / len(scenes)


def scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU-1 to BLEU-4, CIDEr and ROUGE-L of one caption for each picture."""
    return score_captions(dict(enumerate(captions)), dict(enumerate(references)))
