"""Byte-level BPE in pure Python against the `tokenizers` library (Rust), on the standard library's own source.

    python -m benchmarks.tokenizer

Ten megabytes of code are on every machine that has Python, and code has more different words than prose.
Both sides are held to one thread, get the same list of files and must give the same merges and the same numbers.
They take turns in one process; seconds are the process's own, and the best round counts.
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before the library starts its threads

import json
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from shared.tokenizers import PATTERNS, Tokenizer
from shared.tokenizers.byte_alphabet import bytes_to_unicode

MEGABYTES = 10
MERGES = 4_000
ROUNDS = 3


def measure(megabytes: float = MEGABYTES, merges: int = MERGES, rounds: int = ROUNDS) -> list[dict]:
    """Return rows of name, ours, theirs (None without a rival), ratio (above 1 we are faster) and unit."""
    files = _source(int(megabytes * 1e6))
    size = sum(len(text.encode()) for text in files) / 1e6
    vocab_size = 256 + merges
    trained, seconds = _take_turns(
        lambda: Tokenizer.train(files, vocab_size), lambda: _train_library(files, vocab_size), rounds
    )
    ours, theirs = trained
    assert [(bytes_to_unicode(left), bytes_to_unicode(right)) for left, right in ours.merges] == _merges_of(theirs)
    rows = [_row(f"train {len(ours.merges):,} merges on {size:.1f} MB of code", seconds, "s")]

    def fresh() -> Tokenizer:
        return Tokenizer(ours.vocab, ours.merges)  # that remembers no word yet

    def warm() -> list[list[int]]:
        return list(map(ours.encode, files))

    (first, numbers), seconds = _take_turns(
        lambda: list(map(fresh().encode, files)), lambda: _encode_with_library(theirs, files), rounds
    )
    assert first == numbers == warm()
    rows.append(_row(f"encode the {size:.1f} MB, words not met before", seconds, "s"))
    _, seconds = _take_turns(warm, lambda: _encode_with_library(theirs, files), rounds)
    rows.append(_row(f"encode the {size:.1f} MB, words met before", seconds, "s"))
    (texts, same), seconds = _take_turns(
        lambda: list(map(ours.decode, numbers)), lambda: list(map(theirs.decode, numbers)), rounds
    )
    assert texts == same == files
    rows.append(_row(f"decode the {size:.1f} MB", seconds, "s"))
    count = sum(map(len, numbers))
    return [*rows, {"name": "bytes in a token", "ours": size * 1e6 / count, "theirs": None, "ratio": None, "unit": "B"}]


def _source(size: int) -> list[str]:
    """The first files of the standard library, in the order of their names, up to a number of bytes."""
    folder, files = Path(sysconfig.get_path("stdlib")), []
    for path in sorted(folder.rglob("*.py")):
        if size > 0 and "site-packages" not in path.parts:
            files.append(path.read_bytes()[:size].decode("utf-8", "replace"))
            size -= len(files[-1].encode())
    return files


def _take_turns(ours: Callable, theirs: Callable, rounds: int) -> tuple[list, list[float]]:
    """The last result of each side, and the seconds of its best round."""
    results, best = [None, None], [float("inf"), float("inf")]
    for _ in range(rounds):
        for side, work in enumerate((ours, theirs)):
            start = time.process_time()
            results[side] = work()
            best[side] = min(best[side], time.process_time() - start)
    return results, best


def _train_library(files: list[str], vocab_size: int) -> Library:
    tokenizer = Library(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS["llama3"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(files, trainer)
    return tokenizer


def _merges_of(tokenizer: Library) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def _encode_with_library(tokenizer: Library, files: list[str]) -> list[list[int]]:
    """Without the characters' places, which the library counts too unless told not to."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(files)]


def _row(name: str, seconds: list[float], unit: str) -> dict:
    ours, theirs = seconds
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": theirs / ours, "unit": unit}


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}; processor time, best of {ROUNDS}")
    for row in measure():
        versus = f"{row['theirs']:8.2f}{row['ratio']:8.2f}×" if row["theirs"] else ""
        print(f"{row['name']:<56}{row['ours']:8.2f} {row['unit']:<2}{versus}")
