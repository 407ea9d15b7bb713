"""The data of the part `decoder`: a corpus of toy-world text, optionally half real text, and its tokenizer."""

from collections.abc import Sequence

from data.datasets.text_folder import text_pieces
from data.toybox.documents import MIXTURE
from data.toybox.documents import documents as toy_documents
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS

MAX_VOCAB_SIZE = 1000
"""Upper limit; the toy world has fewer words."""
HELD_OUT_DOCUMENTS = 400
TOKENIZER_DOCUMENTS = 4000


def load_corpus(
    data: str, seed: int, documents: int, *, mixed: bool = False, mixture: Sequence[int] = MIXTURE
) -> tuple[list[str], list[str]]:
    """Return training and held-out documents of the toy world; real text joins when `data` names a folder of it.

    `documents` is the number of training documents from each source.
    """
    training = toy_documents("train", seed, documents, mixed=mixed, mixture=mixture)
    held_out = toy_documents("validation", seed, HELD_OUT_DOCUMENTS, mixed=mixed, mixture=mixture)
    if data.startswith("folder:") or data == "text_small":
        pieces = text_pieces(data)
        # The last twentieth is held out: text of the same books, but no page of the training text.
        split = len(pieces) - max(1, len(pieces) // 20)
        real, real_held_out = pieces[:split][:documents], pieces[split:][:HELD_OUT_DOCUMENTS]
        # Alternate, so that the first documents, from which the tokenizer is trained, contain both kinds.
        training = [document for pair in zip(training, real, strict=False) for document in pair] + training[len(real) :]
        held_out = held_out + real_held_out
    return training, held_out


def train_tokenizer(documents: Sequence[str]) -> Tokenizer:
    """Train byte pair encoding on the first documents; pairs that occur only once are not merged."""
    return Tokenizer.train(
        documents[:TOKENIZER_DOCUMENTS], MAX_VOCAB_SIZE, special_tokens=SPECIAL_TOKENS, min_frequency=2
    )
