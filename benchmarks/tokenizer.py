"""Byte-level BPE in pure Python against the `tokenizers` library (Rust), on the standard library's source code.

    python -m benchmarks.tokenizer

Ten megabytes of code are on every machine that has Python, and code has more distinct words than prose. Both sides use
one thread and the same files, and must produce the same merges and token ids. The best processor time counts.
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # before the library starts its threads

import json
import sysconfig
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from benchmarks.report import Row, print_rows
from benchmarks.timing import time_in_turns
from shared.tokenizers import PATTERNS, Tokenizer
from shared.tokenizers.byte_alphabet import bytes_to_unicode

MEGABYTES = 10
MERGES = 4_000
ROUNDS = 3


def measure(megabytes: float = MEGABYTES, merges: int = MERGES, rounds: int = ROUNDS) -> list[Row]:
    """Return rows in seconds, and the mean length of a token in bytes."""
    files = _source_files(int(megabytes * 1e6))
    size = sum(len(text.encode()) for text in files) / 1e6
    vocab_size = 256 + merges
    training = {
        "course": lambda: Tokenizer.train(files, vocab_size),
        "library": lambda: _train_library(files, vocab_size),
    }
    timings = time_in_turns(training, rounds)
    tokenizer, library = timings["course"].result, timings["library"].result
    assert [(bytes_to_unicode(left), bytes_to_unicode(right)) for left, right in tokenizer.merges] == _merges_of(
        library
    )
    times = {f"train {len(tokenizer.merges):,} merges on {size:.1f} MB of code": timings}

    def encode_without_cache() -> list[list[int]]:
        return list(map(Tokenizer(tokenizer.vocab, tokenizer.merges).encode, files))

    def encode() -> list[list[int]]:
        return list(map(tokenizer.encode, files))

    def encode_with_library() -> list[list[int]]:
        # "fast": without the characters' offsets, which the library also computes by default.
        return [encoding.ids for encoding in library.encode_batch_fast(files)]

    timings = time_in_turns({"course": encode_without_cache, "library": encode_with_library}, rounds)
    token_ids = timings["library"].result
    assert timings["course"].result == token_ids == encode()
    times[f"encode the {size:.1f} MB, without cached words"] = timings
    timings = time_in_turns({"course": encode, "library": encode_with_library}, rounds)
    times[f"encode the {size:.1f} MB, with cached words"] = timings
    decoding = {
        "course": lambda: list(map(tokenizer.decode, token_ids)),
        "library": lambda: list(map(library.decode, token_ids)),
    }
    timings = time_in_turns(decoding, rounds)
    assert timings["course"].result == timings["library"].result == files
    times[f"decode the {size:.1f} MB"] = timings
    rows = [Row.of_cost(name, each["course"].best, each["library"].best, "s") for name, each in times.items()]
    return [*rows, Row.of_rate("bytes per token", size * 1e6 / sum(map(len, token_ids)), None, "B")]


def _source_files(size: int) -> list[str]:
    """Return the first files of the standard library, sorted by name, up to a number of bytes."""
    folder, files = Path(sysconfig.get_path("stdlib")), []
    for path in sorted(folder.rglob("*.py")):
        if size > 0 and "site-packages" not in path.parts:
            files.append(path.read_bytes()[:size].decode("utf-8", "replace"))
            size -= len(files[-1].encode())
    return files


def _train_library(files: list[str], vocab_size: int) -> LibraryTokenizer:
    tokenizer = LibraryTokenizer(models.BPE())
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


def _merges_of(tokenizer: LibraryTokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


if __name__ == "__main__":
    print_rows(measure())
