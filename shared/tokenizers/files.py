"""A tokenizer as one file in the Hugging Face layout, `tokenizer.json`, in and out.

Of what that layout can say, this reads the byte-level BPE tokenizers (GPT-2, Llama 3, Qwen2, and whatever the
`tokenizers` library trains as such) and refuses everything that would give other tokens than the file means.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.tokenizers.byte_alphabet import bytes_to_unicode, unicode_to_bytes
from shared.tokenizers.pretokenize import PATTERNS
from shared.tokenizers.tokenizer import Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# What the layout may leave out or say otherwise, and what alone is built here.
NOT_BUILT = {"dropout": None, "byte_fallback": False, "continuing_subword_prefix": None, "end_of_word_suffix": None}


def save_tokenizer(tokenizer: Tokenizer, file: Path | str) -> None:
    """Write the tokenizer, whole or not at all. Raises CourseError when the disk refuses."""
    vocab = {bytes_to_unicode(token): number for token, number in tokenizer.tokens.items()} | tokenizer.special_tokens
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": text, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for text, number in sorted(tokenizer.special_tokens.items(), key=lambda special: special[1])
        ],
        "normalizer": {"type": "NFC"} if tokenizer.nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERNS[tokenizer.pattern]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                BYTE_LEVEL,
            ],
        },
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            **NOT_BUILT,
            "unk_token": None,
            "fuse_unk": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": dict(sorted(vocab.items(), key=lambda entry: entry[1])),
            # "Ġ t", one line each: no spelled token contains a space.
            "merges": [f"{bytes_to_unicode(left)} {bytes_to_unicode(right)}" for left, right in tokenizer.merges],
        },
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_atomically(Path(file), text.encode())


def load_tokenizer(file: Path | str) -> Tokenizer:
    """Read a tokenizer that was saved here or by the `tokenizers` library.

    Raises CourseError, naming the file and what is wrong, when it is missing, no JSON, not a byte-level BPE tokenizer,
    or one with a part that is not built here.
    """
    file = Path(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return _tokenizer(content)
    except FileNotFoundError:
        raise CourseError(f"{file} does not exist; a tokenizer is one file, tokenizer.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CourseError(f"{file} cannot be read as JSON ({error}); download or save it again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CourseError(
            f"{file} is no tokenizer.json as the tokenizers library writes it "
            f"({type(error).__name__}: {error}); download or save it again"
        ) from error
    except ValueError as error:
        raise CourseError(f"{file} is no tokenizer that the course can read: {error}") from error


def _tokenizer(content: Mapping[str, Any]) -> Tokenizer:
    model = content["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise ValueError(f"its model is {kind}, expected BPE")
    for setting, built in NOT_BUILT.items():
        if (model.get(setting) or built) != built:
            raise ValueError(f"{setting} is {model[setting]!r}, supported is only {built!r}")
    nfc = _nfc(content.get("normalizer"))
    special_tokens = {
        added["content"]: added["id"] for added in content.get("added_tokens") or [] if _is_plain(added, nfc)
    }
    vocab = {spelled: number for spelled, number in model["vocab"].items() if spelled not in special_tokens}
    numbers = [*vocab.values(), *special_tokens.values()]
    if strange := [number for number in numbers if type(number) is not int]:
        raise ValueError(f"the number of a token is {strange[0]!r}")
    return Tokenizer(
        {unicode_to_bytes(spelled): number for spelled, number in vocab.items()},
        [_merge(merge) for merge in model["merges"]],
        special_tokens=special_tokens,
        pattern=_pattern(content["pre_tokenizer"]),
        ignore_merges=bool(model.get("ignore_merges")),
        nfc=nfc,
    )


def _is_plain(added: Mapping[str, Any], nfc: bool) -> bool:
    """True; an added token that swallows its surroundings, or depends on them, is refused."""
    asked = [name for name in ("single_word", "lstrip", "rstrip", *["normalized"] * nfc) if added.get(name)]
    if asked:
        raise ValueError(f"the special token {added['content']!r} is {asked[0]}, which is not supported")
    return True


def _merge(merge: str | list[str]) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise ValueError(f"the merge {merge!r} is not two tokens")
    return unicode_to_bytes(parts[0]), unicode_to_bytes(parts[1])


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The name of the pattern that words are cut by, in either way of saying it."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    if not steps or not steps[-1] or steps[-1]["type"] != "ByteLevel":
        raise ValueError("its pre_tokenizer does not end in ByteLevel: it is not a byte-level tokenizer")
    if steps[-1].get("add_prefix_space", True):
        raise ValueError("add_prefix_space is on: texts would come back with a space that they did not have")
    by_itself = steps[-1].get("use_regex", True)
    if len(steps) == 1 and by_itself:
        return "gpt2"
    if len(steps) == 2 and not by_itself and steps[0]["type"] == "Split":
        regex, said = steps[0]["pattern"].get("Regex"), (steps[0]["behavior"], steps[0]["invert"])
        for name, published in PATTERNS.items():
            if regex == published and said == ("Isolated", False):
                return name
    raise ValueError(f"it cuts words by a pattern that is none of {', '.join(PATTERNS)}: {json.dumps(pre_tokenizer)}")


def _nfc(normalizer: Mapping[str, Any] | None) -> bool:
    if normalizer not in (None, {"type": "NFC"}):
        raise ValueError(f"it normalizes text by {normalizer['type']}, supported is NFC or nothing")
    return normalizer is not None
