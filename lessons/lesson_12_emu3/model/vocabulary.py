"""The token ids of vision codes and of the markers around them (arXiv:2409.18869, section 2.3).

Code 305 has the token `<|visual token 000305|>`. The paper's names of the markers and those of the published files:

    [SOV]  <|image start|>   begins an image or a video; its size follows as text, such as 90*90
    [SOT]  <|image token|>   begins the vision tokens
    [EOL]  <|extra_200|>     ends a row of codes
    [EOF]  <|extra_201|>     ends a frame
    [EOV]  <|image end|>     ends the image or the video
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lessons.lesson_11_chameleon.model.vocabulary import check_codes, codes_of_token_ids

PREFIX = "<|visual token "
PLACEHOLDER, END_OF_LINE, PADDING = "<image>", "<|extra_200|>", "<|endoftext|>"
MARKERS = {
    "start": "<|image start|>",
    "tokens": "<|image token|>",
    "end_of_line": END_OF_LINE,
    "end_of_frame": "<|extra_201|>",
    "end": "<|image end|>",
    "bos": "<|extra_203|>",
    "eos": "<|extra_204|>",
}
"""For each field of `VisionMarkers`, the published name of its token."""


def code_name(code: int) -> str:
    """Return the published name of a code's token. Raises ValueError for a code without six digits."""
    if not 0 <= code < 10**6:
        raise ValueError(f"code {code} has no name of six digits; expected 0 to 999999")
    return f"{PREFIX}{code:06d}|>"


def vision_names(codebook_size: int) -> list[str]:
    """Return the names that images and videos add to a text's vocabulary: placeholder, markers and codes."""
    return [PLACEHOLDER, *MARKERS.values(), *map(code_name, range(codebook_size))]


@dataclass(frozen=True)
class VisionMarkers:
    """Hold the token ids of the markers.

    start         before the size of an image or a video
    tokens        after the size, before the first code
    end_of_line   after each row of codes
    end_of_frame  after each frame
    end           after the last frame
    bos, eos      before and after a whole sequence
    """

    start: int
    tokens: int
    end_of_line: int
    end_of_frame: int
    end: int
    bos: int
    eos: int


@dataclass(frozen=True)
class VisionVocabulary:
    """Describe which token ids belong to images and videos.

    code_token_ids  the token id of each code
    vocab_size      number of tokens, text and codes
    end_of_line     token id after each row of codes
    placeholder     token id that stands for one token of an image in a prompt; None without one
    names           token id of each marker by its published name, as far as the file has them
    """

    code_token_ids: tuple[int, ...]
    vocab_size: int
    end_of_line: int
    placeholder: int | None
    names: Mapping[str, int]

    @classmethod
    def from_names(cls, names: Mapping[str, int], codebook_size: int, vocab_size: int) -> "VisionVocabulary":
        """Find the token ids of codes and markers by their names.

        Raises ValueError when there is not exactly one name per codebook vector, a token id is out of range or has two
        names, or no token ends a row.
        """
        code_names = [name for name in names if name.startswith(PREFIX)]
        codes = codes_of_names(code_names)
        if sorted(codes) != list(range(codebook_size)):
            raise ValueError(
                f"vocabulary_map has {len(codes)} names of visual tokens ({len(set(codes))} codes, the last "
                f"{max(codes, default=None)}), and the codebook has {codebook_size} vectors (codebook_size); expected "
                "one name per vector. Use the vocabulary and the vision tokenizer of one model"
            )
        if END_OF_LINE not in names:
            raise ValueError(f"vocabulary_map has no {END_OF_LINE}, which ends each row of an image")
        markers = {name: names[name] for name in (PLACEHOLDER, *MARKERS.values()) if name in names}
        used = markers | {name: names[name] for name in code_names}
        for name, token_id in used.items():
            if not 0 <= token_id < vocab_size:
                raise ValueError(f"vocabulary_map gives {name} the token id {token_id}; expected 0 to {vocab_size - 1}")
        if len(set(used.values())) < len(used):
            repeated = next(token_id for token_id in used.values() if list(used.values()).count(token_id) > 1)
            raise ValueError(f"vocabulary_map gives the token id {repeated} of an image's token to two names")
        by_code = sorted(zip(codes, (names[name] for name in code_names), strict=True))
        token_ids = tuple(token_id for _, token_id in by_code)
        return cls(token_ids, vocab_size, names[END_OF_LINE], names.get(PLACEHOLDER), markers)

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return len(self.code_token_ids)

    @cached_property
    def markers(self) -> VisionMarkers:
        """The token ids of all markers. Raises ValueError when the vocabulary lacks one."""
        if missing := [name for name in MARKERS.values() if name not in self.names]:
            raise ValueError(
                f"vocabulary_map has no {', '.join(missing)}; without these markers, no image or video can be generated"
            )
        return VisionMarkers(**{field: self.names[name] for field, name in MARKERS.items()})

    def is_code(self) -> Bool[Tensor, "vocab"]:
        """Return whether each token is that of a code."""
        is_code = torch.zeros(self.vocab_size, dtype=torch.bool)
        is_code[list(self.code_token_ids)] = True
        return is_code

    def token_ids(self, codes: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return the token id of each code. Raises ValueError for codes that the codebook does not have."""
        check_codes(codes, self.codebook_size)
        return torch.tensor(self.code_token_ids, device=codes.device)[codes]

    def codes(self, token_ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return the code of each token. Raises ValueError for tokens that are no codes."""
        lookup = torch.tensor(self.code_token_ids, device=token_ids.device)
        codes = codes_of_token_ids(token_ids, lookup, self.vocab_size)
        if (codes < 0).any():
            first = int(token_ids[codes < 0].flatten()[0])
            raise ValueError(f"token id {first} is no code of the vision tokenizer; give the codes of frames only")
        return codes


def codes_of_names(names: Sequence[str]) -> list[int]:
    """Return the code of each published name. Raises ValueError for a name without six digits."""
    codes = []
    for name in names:
        match = re.fullmatch(re.escape(PREFIX) + r"([0-9]{6})\|>", name)
        if match is None:
            raise ValueError(f"the visual token {name!r} names no code; expected six digits, as in {code_name(305)}")
        codes.append(int(match[1]))
    return codes
