"""All caption metrics at once, from captions as people and models write them."""

from collections.abc import Hashable, Mapping, Sequence

from shared.evaluation.bleu import bleu
from shared.evaluation.cider import cider
from shared.evaluation.ptb_tokenizer import tokenize_caption
from shared.evaluation.rouge import rouge_l


def score_captions(
    candidates: Mapping[Hashable, str], references: Mapping[Hashable, Sequence[str]]
) -> dict[str, float]:
    """BLEU-1 … BLEU-4, CIDEr and ROUGE-L of one caption for each picture, against what people have said about it.

    METEOR and SPICE are not among them: they need Java programs and models of their own.
    Raises ValueError when there are no captions, a caption has no references, or references have no caption.
    """
    if not candidates:
        raise ValueError("there are no captions to score")
    lonely = [key for key in candidates if not references.get(key)]
    if lonely:
        raise ValueError(f"{len(lonely)} captions have no reference, the first is that of {lonely[0]!r}")
    silent = [key for key in references if key not in candidates]
    if silent:
        raise ValueError(
            f"{len(silent)} pictures have references and no caption, the first is {silent[0]!r}; leave them out of both, "
            "or give an empty caption where the model said nothing"
        )
    said = [tokenize_caption(caption) for caption in candidates.values()]
    expected = [[tokenize_caption(caption) for caption in references[key]] for key in candidates]
    scores = {f"BLEU-{size}": score for size, score in enumerate(bleu(said, expected), start=1)}
    return scores | {"CIDEr": cider(said, expected), "ROUGE-L": rouge_l(said, expected)}
