"""Train byte pair encoding: join the most frequent pair of adjacent tokens into a new token, and repeat.

Source: arXiv:1508.07909, section 3.2. A word is stored as a string whose characters are the *ids* of its tokens. A
pair is then a string of length two, and `word.replace(pair, token)` joins its occurrences from left to right, as byte
pair encoding requires. Comparing two pairs compares the ids of their left tokens, then of their right tokens.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from operator import add

from shared.tokenizers.byte_alphabet import BYTE_TOKENS
from shared.tokenizers.pretokenize import split_words, word_bytes

ID_CHARACTER_OF_BYTE = {token[0]: chr(token_id) for token_id, token in enumerate(BYTE_TOKENS)}


def count_words(texts: Iterable[str], pattern: str = "llama3") -> Counter[bytes]:
    """Return how often each word occurs in the texts.

    Raises ValueError for an unknown pattern, an unpaired surrogate, and a single text in place of a list of texts.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one string, which would be read character by character; give a list, [text]")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split_words(text, pattern))
    return Counter({word_bytes(word): count for word, count in counts.items()})


def learn_merges(
    word_counts: Mapping[bytes, int], max_merges: int, *, min_frequency: int = 1
) -> list[tuple[bytes, bytes]]:
    """Return up to `max_merges` merges (pairs of tokens to join), in the order in which they are learned.

    word_counts    how often each word occurs, as returned by `count_words`
    min_frequency  pairs that occur less often are not joined: training ends early

    Each step joins the pair with the most occurrences. Ties go to the pair whose left token is older, then to the one
    whose right token is older. So the merges depend only on the counts.

    Raises ValueError when `max_merges` is negative or `min_frequency` is below 1.
    """
    if max_merges < 0 or min_frequency < 1:
        raise ValueError(f"max_merges={max_merges} must not be negative, and min_frequency={min_frequency} at least 1")
    tokens: list[bytes] = list(BYTE_TOKENS)
    merges: list[tuple[bytes, bytes]] = []
    words = [word.decode("latin-1").translate(ID_CHARACTER_OF_BYTE) for word in word_counts]
    counts = list(word_counts.values())
    frequency, words_with = count_pairs(words, counts)
    # The most frequent pair is on top, unless its frequency has decreased since it was pushed: so it is looked up.
    # No frequency can have increased unnoticed, since only a pair with the newest token becomes more frequent.
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapify(heap)
    while heap and len(merges) < max_merges:
        negative_count, pair = heappop(heap)
        if -negative_count != frequency[pair]:
            heappush(heap, (-frequency[pair], pair))
            continue
        if frequency[pair] < min_frequency:
            break
        left, right = (tokens[ord(token)] for token in pair)
        new_token = chr(len(tokens))
        tokens.append(left + right)
        merges.append((left, right))
        changes = merge_pair(pair, new_token, words, counts, words_with)
        for changed, change in changes.items():
            frequency[changed] += change
        for new_pair in changes:
            if new_token in new_pair:
                heappush(heap, (-frequency[new_pair], new_pair))
    return merges


def count_pairs(words: list[str], counts: list[int]) -> tuple[Counter[str], dict[str, set[int]]]:
    """Return how often each adjacent pair occurs, and the indices of the words that contain it."""
    frequency: Counter[str] = Counter()
    words_with: dict[str, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in adjacent_pairs(word):
            frequency[pair] += counts[index]
            words_with[pair].add(index)
    return frequency, words_with


def adjacent_pairs(word: str) -> Iterable[str]:
    """Return every adjacent pair of a word. In "aaa" the pair "aa" occurs twice, although only one can be joined."""
    return map(add, word, word[1:])


def merge_pair(
    pair: str, new_token: str, words: list[str], counts: list[int], words_with: dict[str, set[int]]
) -> Counter[str]:
    """Join the pair in every word that contains it, in place. Return the change of each pair's frequency."""
    changes: Counter[str] = Counter()
    for index in words_with.pop(pair):
        word, count = words[index], counts[index]
        merged = words[index] = word.replace(pair, new_token)
        if len(merged) == len(word):
            continue  # an earlier merge used one of the two tokens: the word no longer contains this pair
        for old_pair in adjacent_pairs(word):
            changes[old_pair] -= count
        for new_pair in adjacent_pairs(merged):
            changes[new_pair] += count
            if new_token in new_pair:
                words_with[new_pair].add(index)
    return changes
