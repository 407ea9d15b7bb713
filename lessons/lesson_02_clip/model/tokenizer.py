"""OpenAI's byte-pair tokenizer, from captions to numbers (its released code, `simple_tokenizer.py`; arXiv:1508.07909).

It differs from the byte-level tokenizers of language models (`shared/tokenizers`): text is cleaned first and cannot come
back as it was, white space vanishes, and a word's *last* letter is another token than the same letter inside a word,
`cat</w>` being a word and `cat` the beginning of "category".
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
# The published pattern, with Unicode's letters \p{L} and numbers \p{N} as the kinds "a" and "0" of `character_class`.
WORDS = re.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[A-Za-z]+|[0-9]|[^\sA-Za-z0-9]+", re.ASCII
)
CACHED_WORDS = 2**16


class CLIPTokenizer:
    """Captions to rows of numbers: start, the words' tokens, end, and again the end until the row is full.

    vocab    each token as it is spelled, and its number
    merges   pairs of spelled tokens to join, first learned first
    context  the length of a full row; 77 in all of OpenAI's models

    Raises ValueError when a byte, a merged token, the start or the end has no number.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], *, context: int = 77):
        letters = [bytes_to_unicode(byte) + end for byte in BYTE_TOKENS for end in ("", WORD_END)]
        needed = [*letters, *map("".join, merges), START, END]
        if missing := [token for token in needed if token not in vocab]:
            raise ValueError(f"{len(missing)} tokens have no number, among them {missing[0]!r}")
        self.vocab, self.merges, self.context = dict(vocab), [tuple(pair) for pair in merges], context
        self.start, self.end = vocab[START], vocab[END]
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._spelled = {number: token for token, number in vocab.items()}
        self._tokens_of = lru_cache(CACHED_WORDS)(self._merged)

    @classmethod
    def train(cls, texts: Iterable[str], merges: int, *, context: int = 77) -> "CLIPTokenizer":
        """Learn up to `merges` merges: again and again the commonest pair becomes a token (of equals, the first in the
        alphabet). Numbers are given as OpenAI gave them: bytes, bytes that end a word, merges, start, end."""
        counts = Counter(word for text in texts for word in words_of(clean(text)))
        words = {word: letters_of(word) for word in counts}
        learned: list[tuple[str, str]] = []
        while len(learned) < merges:
            pairs = Counter()
            for word, letters in words.items():
                for pair in pairwise(letters):
                    pairs[pair] += counts[word]
            if not pairs:
                break
            learned.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
            words = {word: join(letters, learned[-1]) for word, letters in words.items()}
        letters = [bytes_to_unicode(byte) + end for end in ("", WORD_END) for byte in BYTE_TOKENS]
        # Two ways may lead to one spelling; it has one number.
        tokens = dict.fromkeys([*letters, *map("".join, learned), START, END])
        return cls({token: number for number, token in enumerate(tokens)}, learned, context=context)

    def encode(self, text: str) -> list[int]:
        """The numbers of one caption's tokens, without start and end. Where the text spells `<|endoftext|>` it means it:
        so it is in OpenAI's code, and one should not let strangers write captions for it."""
        numbers = []
        for word in words_of(clean(text)):
            numbers += [self.vocab[word]] if word in (START, END) else self._tokens_of(word)
        return numbers

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> Int[Tensor, "texts context"]:
        """Full rows of `context` numbers each.

        Raises ValueError when a caption is too long, unless it may be truncated, and for one text without a list.
        """
        if isinstance(texts, str):
            raise ValueError("texts is one text, and would be read a letter at a time: give a list, [text]")
        rows = torch.full((len(texts), self.context), self.end)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.start, *self.encode(text), self.end]
            if len(numbers) > self.context:
                if not truncate:
                    raise ValueError(
                        f"{text[:60]!r}… has {len(numbers)} tokens with start and end, and {self.context} fit; "
                        "shorten it, or cut it with truncate=True"
                    )
                numbers = [*numbers[: self.context - 1], self.end]
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of the tokens, as far as cleaning has left it. Raises KeyError for a number that is no token's."""
        spelled = [self._spelled[int(number)] for number in numbers if int(number) not in (self.start, self.end)]
        words = "".join(spelled).split(WORD_END)
        return " ".join(unicode_to_bytes(word).decode("utf-8", "replace") for word in words).strip()

    def _merged(self, word: str) -> list[int]:
        letters = letters_of(word)
        while len(letters) > 1:
            pair = min(pairwise(letters), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if pair not in self._rank:
                break
            letters = join(letters, pair)
        return [self.vocab[token] for token in letters]

    # ── Published files ───────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "CLIPTokenizer":
        """Read `vocab.json` and `merges.txt`, which all folders of OpenAI's models hold.

        Raises CourseError when one is missing or is not what it should be.
        """
        folder = Path(folder)
        try:
            vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
            return cls(vocab, merges, context=_context(folder))
        except FileNotFoundError as error:
            raise CourseError(
                f"{error.filename} does not exist; a CLIP tokenizer is vocab.json and merges.txt"
            ) from None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise CourseError(f"{folder} holds no CLIP tokenizer that can be read: {error}") from error

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, which `transformers` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        vocab = json.dumps(self.vocab, ensure_ascii=False)
        merges = "\n".join(["#version: 0.2", *map(" ".join, self.merges)]) + "\n"
        config = json.dumps({"model_max_length": self.context, "tokenizer_class": "CLIPTokenizer"})
        for name, content in (("vocab.json", vocab), ("merges.txt", merges), ("tokenizer_config.json", config)):
            (folder / name).write_text(content + "\n" * (name != "merges.txt"), encoding="utf-8")


def _context(folder: Path) -> int:
    """How long a full row is, as `tokenizer_config.json` says; where it is silent, 77."""
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8")).get("model_max_length") if file.exists() else None
    return said if isinstance(said, int) and said < 10**6 else 77  # some published files say 10³⁰


def words_of(text: str) -> list[str]:
    """The words of a cleaned text: runs of letters, single digits, runs of signs, English contractions."""
    kinds = text if text.isascii() else "".join(c if c.isascii() else character_class(c) for c in text)
    return [text[found.start() : found.end()] for found in WORDS.finditer(kinds)]


def letters_of(word: str) -> tuple[str, ...]:
    """A word's bytes, each spelled as a token, the last one as the end of a word."""
    letters = bytes_to_unicode(word.encode())
    return (*letters[:-1], letters[-1] + WORD_END)


def join(letters: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Every occurrence of the pair as one token, from left to right."""
    joined, place = [], 0
    while place < len(letters):
        both = letters[place : place + 2] == pair
        joined.append(letters[place] + letters[place + 1] if both else letters[place])
        place += 1 + both
    return tuple(joined)
