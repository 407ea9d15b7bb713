"""Save and load a tokenizer in the Hugging Face format, one file `tokenizer.json`.

The format covers more than byte-level BPE (GPT-2, Llama 3, Qwen2, and what the `tokenizers` library trains that way).
Everything that this course's tokenizer would encode differently is rejected with the reason.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.atomic import write_atomically
from shared.errors import CourseError
from shared.tokenizers.byte_alphabet import bytes_to_unicode, unicode_to_bytes
from shared.tokenizers.pretokenize import PATTERNS
from shared.tokenizers.tokenizer import Tokenizer

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# Settings that the format allows, and the only value of each that is supported here.
SUPPORTED_SETTINGS = {
    "dropout": None,
    "byte_fallback": False,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
}


def save_tokenizer(tokenizer: Tokenizer, file: Path | str) -> None:
    """Write the tokenizer atomically. Raises CourseError when the file cannot be written."""
    vocab = {bytes_to_unicode(token): token_id for token, token_id in tokenizer.vocab.items()}
    whole_texts = tokenizer.special_tokens | tokenizer.added_tokens
    vocab |= whole_texts
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": text, "special": text in tokenizer.special_tokens, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for text, token_id in sorted(whole_texts.items(), key=lambda token: token[1])
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
            **SUPPORTED_SETTINGS,
            "unk_token": None,
            "fuse_unk": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": dict(sorted(vocab.items(), key=lambda entry: entry[1])),
            # "Ġ t", one per line: no token contains a space in this form.
            "merges": [f"{bytes_to_unicode(left)} {bytes_to_unicode(right)}" for left, right in tokenizer.merges],
        },
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_atomically(Path(file), text.encode())


def load_tokenizer(file: Path | str) -> Tokenizer:
    """Load a tokenizer that was saved by this course or by the `tokenizers` library.

    Raises CourseError, naming the file and the reason, when the file is missing, is not JSON, is not a byte-level BPE
    tokenizer, or uses a setting that is not supported here.
    """
    file = Path(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return _parse_tokenizer(content)
    except FileNotFoundError:
        raise CourseError(f"{file} does not exist; a tokenizer is one file, tokenizer.json") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CourseError(f"{file} cannot be read as JSON ({error}); download or save it again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CourseError(
            f"{file} is not a tokenizer.json as the tokenizers library writes it "
            f"({type(error).__name__}: {error}); download or save it again"
        ) from error
    except ValueError as error:
        raise CourseError(f"{file} is not a tokenizer that the course supports: {error}") from error


def _parse_tokenizer(content: Mapping[str, Any]) -> Tokenizer:
    model = content["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise ValueError(f"its model is {kind}, expected BPE")
    for setting, supported in SUPPORTED_SETTINGS.items():
        if (model.get(setting) or supported) != supported:
            raise ValueError(f"{setting} is {model[setting]!r}, supported is only {supported!r}")
    nfc = _parse_normalizer(content.get("normalizer"))
    added_tokens = content.get("added_tokens") or []
    for added in added_tokens:
        _check_added_token(added, nfc)
    _check_order([added["content"] for added in added_tokens if not added.get("normalized")], added_tokens)
    whole_texts = {added["content"]: added["id"] for added in added_tokens}
    special = {added["content"] for added in added_tokens if added.get("special", True)}
    vocab = {token: token_id for token, token_id in model["vocab"].items() if token not in whole_texts}
    token_ids = [*vocab.values(), *whole_texts.values()]
    if invalid := [token_id for token_id in token_ids if type(token_id) is not int]:
        raise ValueError(f"a token has the id {invalid[0]!r}, expected an integer")
    return Tokenizer(
        {unicode_to_bytes(token): token_id for token, token_id in vocab.items()},
        [_parse_merge(merge) for merge in model["merges"]],
        special_tokens={text: token_id for text, token_id in whole_texts.items() if text in special},
        added_tokens={text: token_id for text, token_id in whole_texts.items() if text not in special},
        pattern=_parse_pattern(content["pre_tokenizer"]),
        ignore_merges=bool(model.get("ignore_merges")),
        nfc=nfc,
    )


def _check_added_token(added: Mapping[str, Any], nfc: bool) -> None:
    """Raise ValueError for an added token that absorbs its surroundings or depends on them."""
    options = ["single_word", "lstrip", "rstrip"] + (["normalized"] if nfc else [])
    unsupported = [name for name in options if added.get(name)]
    if unsupported:
        raise ValueError(f"the added token {added['content']!r} is {unsupported[0]}, which is not supported")
    if not isinstance(added["content"], str) or not isinstance(added.get("special", True), bool):
        raise ValueError(f"the added token {added} needs a text as content, and true or false as special")


def _check_order(found_first: Sequence[str], added_tokens: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError when the order of search matters: the library searches for normalized tokens after the others.

    This course's tokenizer searches for all at once, from left to right.
    """
    for later in (added["content"] for added in added_tokens if added.get("normalized")):
        for first in found_first:
            if first in later or any(later.endswith(first[:count]) for count in range(1, len(first))):
                raise ValueError(
                    f"the added token {later!r} is normalized and overlaps {first!r}, which is not supported"
                )


def _parse_merge(merge: str | list[str]) -> tuple[bytes, bytes]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise ValueError(f"the merge {merge!r} is not two tokens")
    return unicode_to_bytes(parts[0]), unicode_to_bytes(parts[1])


def _parse_pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """Return the name of the pattern that splits words, from either way of writing it."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    if not steps or not steps[-1] or steps[-1]["type"] != "ByteLevel":
        raise ValueError("its pre_tokenizer does not end in ByteLevel: it is not a byte-level tokenizer")
    if steps[-1].get("add_prefix_space", True):
        raise ValueError("add_prefix_space is on: decoding would return a space that the text did not have")
    own_pattern = steps[-1].get("use_regex", True)
    if len(steps) == 1 and own_pattern:
        return "gpt2"
    if len(steps) == 2 and not own_pattern and steps[0]["type"] == "Split":
        regex, behavior = steps[0]["pattern"].get("Regex"), (steps[0]["behavior"], steps[0]["invert"])
        for name, published in PATTERNS.items():
            if regex == published and behavior == ("Isolated", False):
                return name
    raise ValueError(f"its pattern is none of {', '.join(PATTERNS)}: {json.dumps(pre_tokenizer)}")


def _parse_normalizer(normalizer: Mapping[str, Any] | None) -> bool:
    """Return True for NFC, False without a normalizer. Raises ValueError for any other."""
    if normalizer is None:
        return False
    if normalizer != {"type": "NFC"}:
        raise ValueError(f"it normalizes text by {normalizer['type']}, supported is NFC or nothing")
    return True
