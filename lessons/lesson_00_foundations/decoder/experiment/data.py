"""The data of the part `decoder`: a corpus of toy-world text, optionally half real text, and its tokenizer."""

from collections.abc import Sequence
from typing import NamedTuple

from data.datasets.text_folder import text_pieces
from data.toybox.documents import MIXTURE
from data.toybox.documents import documents as toy_documents
from data.toybox.heldout import TEST_SEED
from shared.tokenizers import Tokenizer
from shared.tokenizers.special_tokens import SPECIAL_TOKENS

MAX_VOCAB_SIZE = 1000
"""Upper limit; the toy world has fewer words."""
HELD_OUT_DOCUMENTS = 400
TOKENIZER_DOCUMENTS = 4000


class Corpus(NamedTuple):
    """Hold the documents to train on, those to choose settings on, and those that the claims are measured on."""

    training: list[str]
    validation: list[str]
    test: list[str]


def load_corpus(
    data: str, seed: int, documents: int, *, mixed: bool = False, mixture: Sequence[int] = MIXTURE
) -> Corpus:
    """Return documents of the toy world; real text joins when `data` names a folder of it.

    Validation and test documents are new documents of the same kind, from seeds that differ by `TEST_SEED`.
    `documents` is the number of training documents from each source.
    """
    training = toy_documents("train", seed, documents, mixed=mixed, mixture=mixture)
    validation, test = (
        toy_documents("validation", held_out_seed, HELD_OUT_DOCUMENTS, mixed=mixed, mixture=mixture)
        for held_out_seed in (seed, TEST_SEED + seed)
    )
    if data.startswith("folder:") or data == "text_small":
        pieces = text_pieces(data)
        # The last tenth is held out, half of it for the test: the same books, but no page of the training text.
        held_out = max(1, len(pieces) // 20)
        real, real_validation, real_test = (
            pieces[: -2 * held_out],
            pieces[-2 * held_out : -held_out],
            pieces[-held_out:],
        )
        real = real[:documents]
        # Alternate, so that the first documents, from which the tokenizer is trained, contain both kinds.
        training = [document for pair in zip(training, real, strict=False) for document in pair] + training[len(real) :]
        validation = validation + real_validation[:HELD_OUT_DOCUMENTS]
        test = test + real_test[:HELD_OUT_DOCUMENTS]
    return Corpus(training, validation, test)


def train_tokenizer(documents: Sequence[str]) -> Tokenizer:
    """Train byte pair encoding on the first documents; pairs that occur only once are not merged."""
    return Tokenizer.train(
        documents[:TOKENIZER_DOCUMENTS], MAX_VOCAB_SIZE, special_tokens=SPECIAL_TOKENS, min_frequency=2
    )
