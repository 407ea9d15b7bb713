"""The tokenizer: text to token ids and back."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import index

from shared.tokenizers.byte_alphabet import BYTE_TOKENS, bytes_to_unicode
from shared.tokenizers.pretokenize import PATTERNS, split_words, word_bytes
from shared.tokenizers.train import adjacent_pairs, count_words, learn_merges

MAX_CACHED_WORDS = 2**16
MAX_CACHED_WORD_LENGTH = 64
MAX_VOCAB_SIZE = 0x110000  # the number of Unicode code points, since words are stored as strings of token ids


class Tokenizer:
    """Byte-level byte pair encoding (arXiv:1508.07909; on bytes: GPT-2, section 2.2).

    vocab           the bytes of each token → its id
    merges          pairs of tokens to join, in the order in which they were learned
    special_tokens  texts that are one token each, such as "<|begin|>" and "<image>" → their ids
    added_tokens    ordinary texts that are always one token, such as Qwen2's "<tool_call>" → their ids
    pattern         how text is split into words: a name in `pretokenize.PATTERNS`
    ignore_merges   a word that is itself a token becomes that token, whatever the merges say (as in Llama 3)
    nfc             normalize text to Unicode NFC first (as in Qwen2); decoding returns the normalized text

    Any text and any bytes can be encoded, and decoding restores them (except for `nfc`). Raises ValueError when the
    parts are inconsistent: a missing byte, a merge of tokens that do not exist, two tokens with one id.
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]],
        *,
        special_tokens: Mapping[str, int] | None = None,
        added_tokens: Mapping[str, int] | None = None,
        pattern: str = "llama3",
        ignore_merges: bool = False,
        nfc: bool = False,
    ):
        self.vocab, self.special_tokens = dict(vocab), dict(special_tokens or {})
        self.added_tokens = dict(added_tokens or {})
        self.merges = [(left, right) for left, right in merges]
        self.pattern, self.ignore_merges, self.nfc = pattern, ignore_merges, nfc
        _validate(self.vocab, self.merges, [*self.special_tokens.items(), *self.added_tokens.items()], pattern)
        self._bytes = {token_id: token for token, token_id in self.vocab.items()}
        self._bytes |= {token_id: text.encode() for text, token_id in (self.special_tokens | self.added_tokens).items()}
        self._special_ids = frozenset(self.special_tokens.values())
        # Words are strings of token ids here, as in training.
        self._byte_ids = {token[0]: chr(self.vocab[token]) for token in BYTE_TOKENS}
        pairs = [chr(self.vocab[left]) + chr(self.vocab[right]) for left, right in self.merges]
        self._merged = [chr(self.vocab[left + right]) for left, right in self.merges]
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
        """Learn a vocabulary: the 256 bytes first, then as many merges as fit, then the special tokens.

        A small text may have fewer pairs than would fit. Raises ValueError when `vocab_size` is too small for the bytes
        and the special tokens, when a special token is given twice, and as `count_words` does.
        """
        if len(set(special_tokens)) != len(special_tokens):
            raise ValueError(f"a special token is given twice: {', '.join(special_tokens)}")
        max_merges = vocab_size - len(BYTE_TOKENS) - len(special_tokens)
        if max_merges < 0:
            raise ValueError(f"vocab_size={vocab_size} is less than 256 bytes and {len(special_tokens)} special tokens")
        merges = learn_merges(count_words(texts, pattern), max_merges, min_frequency=min_frequency)
        tokens = [*BYTE_TOKENS, *(left + right for left, right in merges)]
        return cls(
            {token: token_id for token_id, token in enumerate(tokens)},
            merges,
            special_tokens={text: len(tokens) + place for place, text in enumerate(special_tokens)},
            pattern=pattern,
        )

    def with_special_token(self, text: str, token_id: int) -> "Tokenizer":
        """Return the same tokenizer with one more special token; `text` may be an added token that becomes special.

        Raises ValueError when another token has that text or id.
        """
        return Tokenizer(
            self.vocab,
            self.merges,
            special_tokens=self.special_tokens | {text: token_id},
            added_tokens={other: other_id for other, other_id in self.added_tokens.items() if other != text},
            pattern=self.pattern,
            ignore_merges=self.ignore_merges,
            nfc=self.nfc,
        )

    @property
    def vocab_size(self) -> int:
        """The number of rows that an embedding needs: the largest token id plus one."""
        return max(self._bytes) + 1

    def encode(self, text: str | bytes, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Return the token ids of the text.

        A special token is recognized only if `allowed_special` names it (`allowed_special=tokenizer.special_tokens`
        for all). Otherwise "<image>" is seven ordinary characters, so user input cannot forge a turn or an image.
        An added token is always recognized: it is ordinary text.
        Bytes need not be valid UTF-8; an incomplete character is encoded byte by byte.

        Raises ValueError for an unpaired surrogate, and for an unknown name in `allowed_special`.
        """
        if unknown := sorted(set(allowed_special) - self.special_tokens.keys()):
            raise ValueError(
                f"no special token {', '.join(unknown)}; this tokenizer has {', '.join(self.special_tokens) or 'none'}"
            )
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        recognized = {name: self.special_tokens[name] for name in allowed_special} | self.added_tokens
        if not recognized:
            return self._encode_plain(text)
        # Longest first: <image> must not match before <image><end>.
        names = sorted(recognized, key=len, reverse=True)
        token_ids: list[int] = []
        for place, part in enumerate(re.split(f"({'|'.join(map(re.escape, names))})", text)):
            token_ids += [recognized[part]] if place % 2 else self._encode_plain(part)
        return token_ids

    def _encode_plain(self, text: str) -> list[int]:
        token_ids: list[int] = []
        cache = self._cache
        for word in split_words(unicodedata.normalize("NFC", text) if self.nfc else text, self.pattern):
            cached = cache.get(word)
            if cached is None:
                cached = self._encode_word(word)
                if len(cache) < MAX_CACHED_WORDS and len(word) <= MAX_CACHED_WORD_LENGTH:
                    cache[word] = cached
            token_ids += cached
        return token_ids

    def _encode_word(self, word: str) -> list[int]:
        """Apply the merges that occur in a word, in the order in which they were learned.

        A merge joins all its occurrences at once. So even a word of a million characters takes only as many rounds as
        it has different merges.
        """
        data = word_bytes(word)
        if self.ignore_merges and data in self.vocab:
            return [self.vocab[data]]
        tokens = data.decode("latin-1").translate(self._byte_ids)
        queue = [self._rank[pair] for pair in set(adjacent_pairs(tokens)) if pair in self._rank]
        heapify(queue)
        while queue:
            rank = heappop(queue)
            merged = self._merged[rank]
            shorter = tokens.replace(self._pairs[rank], merged)
            if len(shorter) < len(tokens):
                tokens = shorter
                for pair in _pairs_around(merged, tokens):
                    if pair in self._rank:
                        heappush(queue, self._rank[pair])
        return list(map(ord, tokens))

    def decode_bytes(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> bytes:
        """Return the bytes of the tokens. Raises ValueError for an unknown token id."""
        return b"".join(self._token(token_id, skip_special_tokens) for token_id in token_ids)

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the tokens. Invalid UTF-8 becomes "�". Raises ValueError as `decode_bytes` does."""
        return self.decode_bytes(token_ids, skip_special_tokens=skip_special_tokens).decode("utf-8", "replace")

    def _token(self, token_id: int, skip_special_tokens: bool) -> bytes:
        token_id = index(token_id)  # accepts the integers of NumPy and PyTorch
        if token_id not in self._bytes:
            raise ValueError(f"unknown token id {token_id}; this vocabulary has {len(self._bytes)} tokens")
        return b"" if skip_special_tokens and token_id in self._special_ids else self._bytes[token_id]


def _pairs_around(token: str, word: str) -> set[str]:
    """Return the pairs that a token forms with its neighbors, everywhere in a word."""
    pairs, at = set(), word.find(token)
    while at >= 0:
        if at:
            pairs.add(word[at - 1 : at + 1])
        pairs.add(word[at : at + 2])
        at = word.find(token, at + 1)
    return pairs


def _validate(
    vocab: Mapping[bytes, int],
    merges: Sequence[tuple[bytes, bytes]],
    whole_texts: Sequence[tuple[str, int]],
    pattern: str,
) -> None:
    """Raise ValueError when the parts of a tokenizer are inconsistent; `whole_texts` are special and added tokens."""
    if pattern not in PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}: choose one of {', '.join(PATTERNS)}")
    if missing := [byte for byte in BYTE_TOKENS if byte not in vocab]:
        raise ValueError(
            f"no token for {len(missing)} of the 256 bytes, among them {missing[0]!r}: texts would lose it"
        )
    names = [name for name, _ in whole_texts]
    token_ids = [*vocab.values(), *(token_id for _, token_id in whole_texts)]
    if len(set(token_ids)) != len(token_ids) or min(token_ids) < 0 or max(token_ids) >= MAX_VOCAB_SIZE:
        raise ValueError(f"token ids must be 0 to {MAX_VOCAB_SIZE:,}, and no two tokens may share one")
    if "" in names:
        raise ValueError("a special token must not be an empty text")
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise ValueError(f"{twice[0]!r} is a special token and an added token; give it once")
    if clashes := sorted(set(names) & set(map(bytes_to_unicode, vocab))):
        raise ValueError(f"the special token {clashes[0]!r} is also an ordinary token; call it <|{clashes[0]}|>")
    merged: set[bytes] = set()
    for rank, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in vocab:
                raise ValueError(f"merge {rank}, {left!r} and {right!r}: there is no token {token!r}")
        # Otherwise the result would depend on where in a word merging begins.
        if left + right in merged:
            raise ValueError(f"merge {rank} makes {left + right!r}, which an earlier merge already joins")
        merged |= {left, right}
    if len(set(merges)) != len(merges):
        raise ValueError("the same merge is given twice")
