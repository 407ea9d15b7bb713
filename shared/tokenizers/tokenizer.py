"""Text to token numbers and back."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import index

from shared.tokenizers.byte_alphabet import BYTE_TOKENS, bytes_to_unicode
from shared.tokenizers.pretokenize import PATTERNS, split, to_bytes
from shared.tokenizers.train import count_words, learn_merges, pairs_of

CACHED_WORDS = 2**16
LONGEST_CACHED = 64
LARGEST_VOCABULARY = 0x110000  # as many characters as there are, since words are strings of token numbers


class Tokenizer:
    """Byte-level byte pair encoding (arXiv:1508.07909; on bytes: GPT-2, section 2.2).

    tokens         the bytes of each token, and its number
    merges         pairs of tokens to join, first learned first
    special_tokens       texts that stand for one token each and are no text: "<|begin|>", "<image>"; and their numbers
    pattern        how text is cut into words: a name in `pretokenize.PATTERNS`
    ignore_merges  a word that is a token as a whole is taken as such, whatever the merges say (Llama 3 does)
    nfc            text is first brought into Unicode's composed form (Qwen2 does); decoding gives that form

    Any text and any bytes can be written, and come back as they were (but for `nfc`). Raises ValueError when the
    parts do not fit together: a missing byte, a merge of tokens that do not exist, two tokens of one number.
    """

    def __init__(
        self,
        tokens: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        *,
        special_tokens: Mapping[str, int] | None = None,
        pattern: str = "llama3",
        ignore_merges: bool = False,
        nfc: bool = False,
    ):
        self.tokens, self.merges, self.special_tokens = (
            dict(tokens),
            [tuple(pair) for pair in merges],
            dict(special_tokens or {}),
        )
        self.pattern, self.ignore_merges, self.nfc = pattern, ignore_merges, nfc
        _check(self.tokens, self.merges, self.special_tokens, pattern)
        self._bytes = {number: token for token, number in self.tokens.items()}
        self._bytes |= {number: text.encode() for text, number in self.special_tokens.items()}
        self._special_numbers = frozenset(self.special_tokens.values())
        # Words are strings of token numbers here, as in training.
        self._letters = {token[0]: chr(self.tokens[token]) for token in BYTE_TOKENS}
        pairs = [chr(self.tokens[left]) + chr(self.tokens[right]) for left, right in self.merges]
        self._joined = [chr(self.tokens[left + right]) for left, right in self.merges]
        self._pairs, self._rank = pairs, {pair: rank for rank, pair in enumerate(pairs)}
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        special_tokens: Sequence[str] = (),
        pattern: str = "llama3",
        min_frequency: int = 1,
    ) -> "Tokenizer":
        """Learn a vocabulary: the 256 bytes, as many merges as fit, and the special tokens last.

        A small text may have fewer pairs to join than would fit. Raises ValueError when `vocab_size` does not hold
        the bytes and the special tokens, when a special token is named twice, and as `count_words` does.
        """
        if len(set(special_tokens)) != len(special_tokens):
            raise ValueError(f"a special token is named twice: {', '.join(special_tokens)}")
        number = vocab_size - len(BYTE_TOKENS) - len(special_tokens)
        if number < 0:
            raise ValueError(f"vocab_size={vocab_size} is less than 256 bytes and {len(special_tokens)} special tokens")
        merges = learn_merges(count_words(texts, pattern), number, min_frequency=min_frequency)
        tokens = [*BYTE_TOKENS, *(left + right for left, right in merges)]
        return cls(
            {token: number for number, token in enumerate(tokens)},
            merges,
            special_tokens={text: len(tokens) + place for place, text in enumerate(special_tokens)},
            pattern=pattern,
        )

    @property
    def vocab_size(self) -> int:
        """How many rows an embedding needs: one more than the largest number of a token."""
        return max(self._bytes) + 1

    def encode(self, text: str | bytes, *, allow: Collection[str] = ()) -> list[int]:
        """Return the numbers of the text's tokens.

        Special tokens stand only where the text has one that `allow` names (`allow=tokenizer.special_tokens` for all).
        Any other "<image>" is seven characters like any others: what a user types can't forge a turn or an image.
        Bytes need not be UTF-8; half a character is written byte by byte.

        Raises ValueError for half a surrogate pair, which is no character, and for an unknown name in `allow`.
        """
        if unknown := sorted(set(allow) - self.special_tokens.keys()):
            raise ValueError(
                f"no special token {', '.join(unknown)}; there are {', '.join(self.special_tokens) or 'none'}"
            )
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        if not allow:
            return self._encode_plain(text)
        # The longest first: <image> must not hide <image><end>.
        names = sorted(allow, key=len, reverse=True)
        numbers: list[int] = []
        for place, part in enumerate(re.split(f"({'|'.join(map(re.escape, names))})", text)):
            numbers += [self.special_tokens[part]] if place % 2 else self._encode_plain(part)
        return numbers

    def _encode_plain(self, text: str) -> list[int]:
        numbers: list[int] = []
        cache = self._cache
        for word in split(unicodedata.normalize("NFC", text) if self.nfc else text, self.pattern):
            known = cache.get(word)
            if known is None:
                known = self._encode_word(word)
                if len(cache) < CACHED_WORDS and len(word) <= LONGEST_CACHED:
                    cache[word] = known
            numbers += known
        return numbers

    def _encode_word(self, word: str) -> list[int]:
        """Apply the merges that occur in a word in the order in which they were learned.

        A merge joins all of its pairs at once, so even a word of a million letters takes only as many rounds as there
        are different merges in it.
        """
        data = to_bytes(word)
        if self.ignore_merges and data in self.tokens:
            return [self.tokens[data]]
        tokens = data.decode("latin-1").translate(self._letters)
        waiting = [self._rank[pair] for pair in set(pairs_of(tokens)) if pair in self._rank]
        heapify(waiting)
        while waiting:
            rank = heappop(waiting)
            joined = self._joined[rank]
            shorter = tokens.replace(self._pairs[rank], joined)
            if len(shorter) < len(tokens):
                tokens = shorter
                for pair in _pairs_around(joined, tokens):
                    if pair in self._rank:
                        heappush(waiting, self._rank[pair])
        return list(map(ord, tokens))

    def decode_bytes(self, numbers: Iterable[int], *, skip_special_tokens: bool = False) -> bytes:
        """Return the bytes that the tokens stand for. Raises ValueError for a number that is no token's."""
        return b"".join(self._token(number, skip_special_tokens) for number in numbers)

    def decode(self, numbers: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the tokens; bytes that are no UTF-8 become "�". Raises ValueError as `decode_bytes`."""
        return self.decode_bytes(numbers, skip_special_tokens=skip_special_tokens).decode("utf-8", "replace")

    def _token(self, number: int, skip_special_tokens: bool) -> bytes:
        number = index(number)  # NumPy's and PyTorch's integers will do too
        if number not in self._bytes:
            raise ValueError(f"{number} is no token's number; this vocabulary has {len(self._bytes)} tokens")
        return b"" if skip_special_tokens and number in self._special_numbers else self._bytes[number]


def _pairs_around(token: str, word: str) -> set[str]:
    """The pairs that a token makes with its neighbors, everywhere in a word."""
    pairs, at = set(), word.find(token)
    while at >= 0:
        if at:
            pairs.add(word[at - 1 : at + 1])
        pairs.add(word[at : at + 2])
        at = word.find(token, at + 1)
    return pairs


def _check(
    tokens: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], special_tokens: Mapping[str, int], pattern: str
) -> None:
    if pattern not in PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: choose one of {', '.join(PATTERNS)}")
    if missing := [byte for byte in BYTE_TOKENS if byte not in tokens]:
        raise ValueError(
            f"no token for {len(missing)} of the 256 bytes, among them {missing[0]!r}: texts would lose it"
        )
    numbers = [*tokens.values(), *special_tokens.values()]
    if len(set(numbers)) != len(numbers) or min(numbers) < 0 or max(numbers) >= LARGEST_VOCABULARY:
        raise ValueError(f"the tokens' numbers must be 0 to {LARGEST_VOCABULARY:,}, and no two tokens may share one")
    if "" in special_tokens:
        raise ValueError("a special token needs a text")
    if doubles := sorted(special_tokens.keys() & map(bytes_to_unicode, tokens)):
        raise ValueError(f"the special token {doubles[0]!r} is also a piece of plain text; call it <|{doubles[0]}|>")
    used: set[bytes] = set()
    for rank, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in tokens:
                raise ValueError(f"merge {rank}, {left!r} and {right!r}: there is no token {token!r}")
        # Else a word could be joined in two ways, depending on where one begins.
        if left + right in used:
            raise ValueError(f"merge {rank} makes {left + right!r}, which an earlier merge already joins")
        used |= {left, right}
    if len(set(merges)) != len(merges):
        raise ValueError("the same merge stands twice")
