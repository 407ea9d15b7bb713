"""Byte pair encoding, trained: join the commonest pair of neighbors into a token, and again (arXiv:1508.07909, section 3.2).

A word is written as a string whose characters are the *numbers* of its tokens. A pair is then a string of two, its
occurrences in a word are joined by `word.replace(pair, token)`, from left to right as everywhere in byte pair encoding,
and comparing two pairs compares the numbers of their left tokens, then of their right ones.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from operator import add

from shared.tokenizers.byte_alphabet import BYTE_TOKENS
from shared.tokenizers.pretokenize import split, to_bytes

NUMBER_OF_BYTE = {token[0]: chr(number) for number, token in enumerate(BYTE_TOKENS)}


def count_words(texts: Iterable[str], pattern: str = "llama3") -> Counter[bytes]:
    """Return how often each word stands in the texts.

    Raises ValueError for a pattern that is not known, for half a surrogate pair, and for one text without a list.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one text, and would be read a letter at a time: give a list, [text]")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text, pattern))
    return Counter({to_bytes(word): count for word, count in counts.items()})


def learn_merges(counts: Mapping[bytes, int], number: int, *, min_frequency: int = 1) -> list[tuple[bytes, bytes]]:
    """Return up to `number` merges, the pairs of tokens to join, in the order in which they were learned.

    counts         how often each word occurs, as from `count_words`
    min_frequency  a pair that occurs less often is not joined: learning ends early

    Each time the pair with the most occurrences is joined; of several the one whose left token is older, then the one
    whose right token is older. So the merges depend on nothing but the counts.

    Raises ValueError when `number` is negative or `min_frequency` below 1.
    """
    if number < 0 or min_frequency < 1:
        raise ValueError(f"number={number} must not be negative, and min_frequency={min_frequency} at least 1")
    tokens, merges = list(BYTE_TOKENS), []
    words = [word.decode("latin-1").translate(NUMBER_OF_BYTE) for word in counts]
    often = list(counts.values())
    frequency, places = count_pairs(words, often)
    # The commonest pair is on top, except that frequencies have sunk since they were put there: those are looked up.
    # None can have risen unseen, since only a pair with the newest token in it becomes more frequent.
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapify(heap)
    while heap and len(merges) < number:
        believed, pair = heappop(heap)
        if -believed != frequency[pair]:
            heappush(heap, (-frequency[pair], pair))
            continue
        if frequency[pair] < min_frequency:
            break
        left, right = (tokens[ord(token)] for token in pair)
        joined = chr(len(tokens))
        tokens.append(left + right)
        merges.append((left, right))
        changes = join(pair, joined, words, often, places)
        for changed, change in changes.items():
            frequency[changed] += change
        for new in changes:
            if joined in new:
                heappush(heap, (-frequency[new], new))
    return merges


def count_pairs(words: list[str], often: list[int]) -> tuple[Counter[str], dict[str, set[int]]]:
    """Return how often each pair of neighbors occurs, and the numbers of the words where."""
    frequency: Counter[str] = Counter()
    places: dict[str, set[int]] = defaultdict(set)
    for number, word in enumerate(words):
        for pair in pairs_of(word):
            frequency[pair] += often[number]
            places[pair].add(number)
    return frequency, places


def pairs_of(word: str) -> Iterable[str]:
    """Return every two neighbors in a word. In "aaa" the pair "aa" occurs twice, though only one can be joined."""
    return map(add, word, word[1:])


def join(pair: str, joined: str, words: list[str], often: list[int], places: dict[str, set[int]]) -> Counter[str]:
    """Replace the pair in every word that has it, and return by how much the frequency of each pair changes."""
    changes: Counter[str] = Counter()
    for number in places.pop(pair):
        word, count = words[number], often[number]
        shorter = words[number] = word.replace(pair, joined)
        if len(shorter) == len(word):
            continue  # an earlier merge has taken one of the two: the word no longer has this pair
        for old in pairs_of(word):
            changes[old] -= count
        for new in pairs_of(shorter):
            changes[new] += count
            if joined in new:
                places[new].add(number)
    return changes
