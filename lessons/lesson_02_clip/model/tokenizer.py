"""OpenAI's byte-pair tokenizer for captions (its released code, `simple_tokenizer.py`; arXiv:1508.07909).

It differs from the byte-level tokenizers of language models (`shared/tokenizers`). Text is cleaned first and cannot be
recovered exactly, and white space is dropped. The *last* letter of a word is a different token than the same letter
inside a word: `cat</w>` is a word and `cat` the beginning of "category".
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from lessons.lesson_02_clip.model.text_cleaning import clean
from shared.errors import CourseError
from shared.tokenizers.byte_alphabet import BYTE_TOKENS, bytes_to_unicode, unicode_to_bytes
from shared.tokenizers.pretokenize import character_class

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
# The published pattern, with Unicode's letters \p{L} and numbers \p{N} as the classes "a" and "0" of `character_class`.
WORDS = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]+", re.ASCII
)
CACHED_WORDS = 2**16
PUBLISHED_CONTEXT_LENGTH = 77


class CLIPTokenizer:
    """Convert captions to rows of token ids: start token, tokens of the words, end token, repeated to fill the row.

    vocab           spelling of each token → its id
    merges          pairs of spellings to join, in the order in which they were learned
    context_length  length of a row; 77 in all of OpenAI's models

    Raises ValueError when a byte, a merged token, the start or the end token has no id.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        context_length: int = PUBLISHED_CONTEXT_LENGTH,
    ):
        letters = [bytes_to_unicode(byte) + end for byte in BYTE_TOKENS for end in ("", WORD_END)]
        required = [*letters, *map("".join, merges), START, END]
        if missing := [token for token in required if token not in vocab]:
            raise ValueError(f"{len(missing)} tokens have no id, among them {missing[0]!r}")
        self.vocab, self.merges, self.context_length = dict(vocab), [(a, b) for a, b in merges], context_length
        self.start, self.end = vocab[START], vocab[END]
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._spellings = {token_id: token for token, token_id in vocab.items()}
        self._encode_word = lru_cache(CACHED_WORDS)(self._merge_word)

    @classmethod
    def train(
        cls, texts: Iterable[str], merges: int, *, context_length: int = PUBLISHED_CONTEXT_LENGTH
    ) -> "CLIPTokenizer":
        """Learn up to `merges` merges: the most frequent pair becomes a token, again and again.

        Ties are broken alphabetically. Ids are assigned in OpenAI's order: bytes, bytes that end a word, merges, start,
        end.
        """
        counts = Counter(word for text in texts for word in split_words(clean(text)))
        words = {word: split_letters(word) for word in counts}
        learned: list[tuple[str, str]] = []
        while len(learned) < merges:
            pairs: Counter[tuple[str, str]] = Counter()
            for word, letters in words.items():
                for pair in pairwise(letters):
                    pairs[pair] += counts[word]
            if not pairs:
                break
            learned.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
            words = {word: join_pair(letters, learned[-1]) for word, letters in words.items()}
        alphabet = [bytes_to_unicode(byte) + end for end in ("", WORD_END) for byte in BYTE_TOKENS]
        # Two merges may give the same spelling, which has one id.
        tokens = dict.fromkeys([*alphabet, *map("".join, learned), START, END])
        vocab = {token: token_id for token_id, token in enumerate(tokens)}
        return cls(vocab, learned, context_length=context_length)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of one caption, without start and end.

        As in OpenAI's code, `<|endoftext|>` in the text becomes the end token: do not encode untrusted captions.
        """
        token_ids: list[int] = []
        for word in split_words(clean(text)):
            token_ids += [self.vocab[word]] if word in (START, END) else self._encode_word(word)
        return token_ids

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> Int[Tensor, "texts context_length"]:
        """Return one row of `context_length` token ids per caption.

        Raises ValueError for a caption that is too long, unless `truncate`, and for a single text outside a list.
        """
        if isinstance(texts, str):
            raise ValueError("texts is one string, whose letters would be encoded separately: give a list, [text]")
        rows = torch.full((len(texts), self.context_length), self.end)
        for row, text in zip(rows, texts, strict=True):
            token_ids = [self.start, *self.encode(text), self.end]
            if len(token_ids) > self.context_length:
                if not truncate:
                    raise ValueError(
                        f"{text[:60]!r}… has {len(token_ids)} tokens with start and end, and {self.context_length} fit"
                        "; shorten it, or truncate it with truncate=True"
                    )
                token_ids = [*token_ids[: self.context_length - 1], self.end]
            row[: len(token_ids)] = torch.tensor(token_ids)
        return rows

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of the tokens, as cleaning left it. Raises KeyError for an unknown id."""
        spellings = [self._spellings[int(i)] for i in token_ids if int(i) not in (self.start, self.end)]
        words = "".join(spellings).split(WORD_END)
        return " ".join(unicode_to_bytes(word).decode("utf-8", "replace") for word in words).strip()

    def _merge_word(self, word: str) -> list[int]:
        letters = split_letters(word)
        while len(letters) > 1:
            pair = min(pairwise(letters), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if pair not in self._rank:
                break
            letters = join_pair(letters, pair)
        return [self.vocab[token] for token in letters]

    # ── Published files ───────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "CLIPTokenizer":
        """Read `vocab.json` and `merges.txt` of a published folder.

        Raises CourseError when one is missing or malformed.
        """
        folder = Path(folder)
        try:
            vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            if wrong := [token for token, token_id in vocab.items() if type(token_id) is not int or token_id < 0]:
                raise ValueError(f"{wrong[0]!r} has the id {vocab[wrong[0]]!r}, expected a whole number from 0")
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
            merges = [(first, second) for first, second in pairs]
            return cls(vocab, merges, context_length=_read_context_length(folder))
        except FileNotFoundError as error:
            raise CourseError(
                f"{error.filename} does not exist; a CLIP tokenizer is vocab.json and merges.txt"
            ) from None
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise CourseError(f"{folder} does not hold a readable CLIP tokenizer: {error}") from error

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, which `transformers` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        vocab = json.dumps(self.vocab, ensure_ascii=False)
        merges = "\n".join(["#version: 0.2", *map(" ".join, self.merges)]) + "\n"
        config = json.dumps({"model_max_length": self.context_length, "tokenizer_class": "CLIPTokenizer"})
        for name, content in (("vocab.json", vocab), ("merges.txt", merges), ("tokenizer_config.json", config)):
            (folder / name).write_text(content + "\n" * (name != "merges.txt"), encoding="utf-8")


def _read_context_length(folder: Path) -> int:
    """Return the length in `tokenizer_config.json`, or 77 without one."""
    file = folder / "tokenizer_config.json"
    length = json.loads(file.read_text(encoding="utf-8")).get("model_max_length") if file.exists() else None
    if length is None or (isinstance(length, int | float) and length >= 10**6):
        return PUBLISHED_CONTEXT_LENGTH  # some published files have 10³⁰ for "unknown"
    if type(length) is not int or length < 2:
        raise ValueError(f"model_max_length is {length!r}, expected at least 2 tokens, start and end")
    return length


def split_words(text: str) -> list[str]:
    """Return the words of a cleaned text: runs of letters, single digits, runs of signs, English contractions."""
    classes = text if text.isascii() else "".join(c if c.isascii() else character_class(c) for c in text)
    return [text[match.start() : match.end()] for match in WORDS.finditer(classes)]


def split_letters(word: str) -> tuple[str, ...]:
    """Return a word's bytes, each spelled as a token, the last one with the end-of-word mark."""
    letters = bytes_to_unicode(word.encode())
    return (*letters[:-1], letters[-1] + WORD_END)


def join_pair(letters: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of the pair into one token, from left to right."""
    joined, index = [], 0
    while index < len(letters):
        match = letters[index : index + 2] == pair
        joined.append(letters[index] + letters[index + 1] if match else letters[index])
        index += 1 + match
    return tuple(joined)
