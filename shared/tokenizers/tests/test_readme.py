"""Recompute the README's example by hand and run its code."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from shared.tokenizers import Tokenizer
from shared.tokenizers.byte_alphabet import BYTE_TOKENS
from shared.tokenizers.pretokenize import character_class
from shared.tokenizers.train import learn_merges

PAGE = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COUNTS = {b"red": 4, b"ready": 3, b"ring": 2, b"bring": 2}


def tokenizer_with(merges: list[tuple[bytes, bytes]]) -> Tokenizer:
    tokens = [*BYTE_TOKENS, *(left + right for left, right in merges)]
    return Tokenizer({token: number for number, token in enumerate(tokens)}, merges, pattern="gpt2")


def cut(tokenizer: Tokenizer, word: bytes) -> list[str]:
    return [tokenizer.decode([number]) for number in tokenizer.encode(word)]


def whiteboard() -> list[str]:
    """Before each merge: the most frequent pairs, the one that is joined, and how the words look after it."""
    merges, rows = learn_merges(COUNTS, 100), []
    for step, merge in enumerate(merges):
        before, frequency = tokenizer_with(merges[:step]), Counter()
        for word, count in COUNTS.items():
            for pair in pairwise(cut(before, word)):
                frequency["·".join(pair)] += count
        most = max(frequency.values())
        tied = sorted(pair for pair, count in frequency.items() if count == most)
        joined = "·".join(token.decode() for token in merge)
        words = ", ".join("·".join(cut(tokenizer_with(merges[: step + 1]), word)) for word in COUNTS)
        rows.append(f"| {step + 1} | {most} | {', '.join(tied)} | {joined} | {words} |")
    return rows


def test_table_of_merges_equals_training():
    assert re.findall(r"^\| \d+ \| .*$", PAGE, flags=re.M) == whiteboard()


def test_new_words_are_split_as_the_page_says():
    tokenizer = tokenizer_with(learn_merges(COUNTS, 100))
    on_page = dict(re.findall(r"^- `(\w+)` → `([^`]+)`", PAGE, flags=re.M))
    assert on_page == {word: "·".join(cut(tokenizer, word.encode())) for word in on_page} and len(on_page) == 3


def test_first_pair_counts_equal_the_page():
    frequency = Counter()
    for word, count in COUNTS.items():
        for pair in pairwise(word.decode()):
            frequency["".join(pair)] += count
    on_page = re.search(r"^    (re \d.*)$", PAGE, flags=re.M)[1]
    assert on_page == "   ".join(f"{pair} {count}" for pair, count in frequency.most_common())


def test_examples_run_in_order(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    assert len(blocks) == 3
    exec("".join(blocks), {})
    assert "".join(capsys.readouterr().out.split()) == "ring🦜"


def test_character_classes_equal_the_page():
    text, kinds = re.search(r"^    text     (.*)\n    classes  (.*)$", PAGE, flags=re.M).groups()
    assert "".join(character if character.isascii() else character_class(character) for character in text) == kinds
