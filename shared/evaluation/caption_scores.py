"""All caption metrics at once, from captions as plain text."""

from collections.abc import Hashable, Mapping, Sequence

from shared.evaluation.bleu import bleu
from shared.evaluation.cider import cider
from shared.evaluation.ptb_tokenizer import tokenize_caption
from shared.evaluation.rouge import rouge_l
from shared.evaluation.texts import require_mapping, require_text, require_texts


def score_captions(
    candidates: Mapping[Hashable, str], references: Mapping[Hashable, Sequence[str]]
) -> dict[str, float]:
    """Return BLEU-1 … BLEU-4, CIDEr and ROUGE-L of one caption per image, against the references of the same keys.

    METEOR and SPICE are not included: they need Java programs and models of their own.

    Raises ValueError when there are no captions, a caption has no references, or references have no caption;
    and when a caption is no text, or references are no list of texts.
    """
    require_mapping(candidates, "candidates")
    require_mapping(references, "references")
    if not candidates:
        raise ValueError("there are no captions to score")
    without_reference = [key for key in candidates if not references.get(key)]
    if without_reference:
        raise ValueError(
            f"{len(without_reference)} captions have no reference, the first is that of {without_reference[0]!r}"
        )
    without_caption = [key for key in references if key not in candidates]
    if without_caption:
        raise ValueError(
            f"{len(without_caption)} images have references and no caption, the first is {without_caption[0]!r}; leave "
            "them out of both, or pass an empty caption where the model generated nothing"
        )
    for key, caption in candidates.items():
        require_text(caption, f"the caption of {key!r}")
        require_texts(references[key], f"the references of {key!r}")
    candidate_words = [tokenize_caption(caption) for caption in candidates.values()]
    reference_words = [[tokenize_caption(caption) for caption in references[key]] for key in candidates]
    scores = {f"BLEU-{size}": score for size, score in enumerate(bleu(candidate_words, reference_words), start=1)}
    return scores | {
        "CIDEr": cider(candidate_words, reference_words),
        "ROUGE-L": rouge_l(candidate_words, reference_words),
    }
