"""One vocabulary for text and images: the token ids of codes, and images as token ids (arXiv:2405.09818, section 2.1).

A codebook of C vectors adds C tokens to the text's. Published vocabularies name them: code 8191 is `IMGIMGIBJBZ`, in
which the letters A to J stand for the digits 0 to 9, and a Z ends the name. The tokens are in no order, so a name is
the only link between a code and its token id. An image is a begin token, its codes in reading order, and an end token.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PREFIX, LETTERS, SUFFIX = "IMGIMG", "ABCDEFGHIJ", "Z"
PLACEHOLDER, BEGIN, END = "<image>", "<racm3:break>", "<eoss>"
"""The names of the token that stands for a code in a prompt, and of the tokens around an image."""


# ── Names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def code_name(code: int) -> str:
    """Return the published name of a code's token. Raises ValueError for a negative code."""
    if code < 0:
        raise ValueError(f"code {code} is negative; codes are counted from 0")
    return PREFIX + "".join(LETTERS[int(digit)] for digit in str(code)) + SUFFIX


def codes_of_names(names: Sequence[str]) -> Int[Tensor, "names"]:
    """Return the code of each published name, such as 305 for `IMGIMGDAFZ`; leading zeros do not count.

    Raises ValueError for a name without a number.
    """
    for name in names:
        if not re.fullmatch(f"{PREFIX}[{LETTERS}]+{SUFFIX}", name):
            raise ValueError(
                f"the image token {name!r} names no code; expected {PREFIX}, letters {LETTERS[0]} to {LETTERS[-1]} for "
                f"the digits 0 to 9, and {SUFFIX}, as in {code_name(305)}"
            )
    # exercise 11.1: letters to numbers
    codes = []
    for name in names:
        code = 0
        for letter in name.removeprefix(PREFIX).removesuffix(SUFFIX):
            code = 10 * code + LETTERS.index(letter)
        codes.append(code)
    return torch.tensor(codes, dtype=torch.long)
    # end exercise


def add_image_names(names: Mapping[str, int], codebook_size: int) -> dict[str, int]:
    """Return a text vocabulary with the names of images after its own: the placeholder, begin, end, and all codes.

    Raises ValueError when the text has a token of one of these names.
    """
    new_names = [PLACEHOLDER, BEGIN, END, *map(code_name, range(codebook_size))]
    if taken := [name for name in new_names if name in names]:
        raise ValueError(f"the text vocabulary already has {', '.join(taken[:3])}; images need names of their own")
    first = max(names.values(), default=-1) + 1
    return {**names, **{name: first + place for place, name in enumerate(new_names)}}


# ── Token ids ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ImageVocabulary:
    """Describe which token ids belong to images.

    code_token_ids  the token id of each code
    image_tokens    number of codes of an image
    vocab_size      number of tokens, text and images
    placeholder     token id that stands for one code in a prompt; None without one
    begin, end      token ids before and after an image; None without them
    """

    code_token_ids: tuple[int, ...]
    image_tokens: int
    vocab_size: int
    placeholder: int | None
    begin: int | None
    end: int | None

    @classmethod
    def from_names(
        cls, names: Mapping[str, int], codebook_size: int, image_tokens: int, vocab_size: int
    ) -> "ImageVocabulary":
        """Return the token ids of images in a vocabulary of published names.

        Raises ValueError when the names do not fit the codebook, or a token id is out of range or has two names.
        """
        image_names = [name for name in names if name.startswith(PREFIX)]
        codes = codes_of_names(image_names).tolist()
        if sorted(codes) != list(range(codebook_size)):
            raise ValueError(
                f"vocabulary_map has {len(codes)} names of image tokens ({len(set(codes))} codes, the last "
                f"{max(codes, default=None)}), and the codebook has {codebook_size} vectors (num_embeddings); "
                "expected one name per vector. Use the vocabulary and the image tokenizer of one model"
            )
        special = {name: names[name] for name in (PLACEHOLDER, BEGIN, END) if name in names}
        used = special | {name: names[name] for name in image_names}
        for name, token_id in used.items():
            if not 0 <= token_id < vocab_size:
                raise ValueError(f"vocabulary_map gives {name} the token id {token_id}; expected 0 to {vocab_size - 1}")
        counts = torch.tensor(list(names.values()), dtype=torch.long).unique(return_counts=True)
        repeated = set(counts[0][counts[1] > 1].tolist()) & set(used.values())
        if repeated:
            raise ValueError(f"vocabulary_map gives the token id {min(repeated)} of an image token to two names")
        by_code = sorted(zip(codes, (names[name] for name in image_names), strict=True))
        return cls(
            tuple(token_id for _, token_id in by_code),
            image_tokens,
            vocab_size,
            *(special.get(name) for name in (PLACEHOLDER, BEGIN, END)),
        )

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return len(self.code_token_ids)

    def is_code(self) -> Bool[Tensor, "vocab"]:
        """Return whether each token is that of a code."""
        is_code = torch.zeros(self.vocab_size, dtype=torch.bool)
        is_code[list(self.code_token_ids)] = True
        return is_code

    def markers(self) -> tuple[int, int]:
        """Return the begin and end token ids. Raises ValueError for a vocabulary without them."""
        if self.begin is None or self.end is None:
            raise ValueError(f"vocabulary_map has no {BEGIN} or no {END}; without them, no image can be generated")
        return self.begin, self.end

    def image_token_ids(self, codes: Int[Tensor, "images tokens"]) -> Int[Tensor, "images tokens+2"]:
        """Return images as token ids: begin, codes, end. Raises ValueError for codes of another number or range."""
        begin, end = self.markers()
        if codes.shape[1] != self.image_tokens:
            raise ValueError(f"an image has {codes.shape[1]} codes; expected {self.image_tokens}")
        check_codes(codes, self.codebook_size)
        inside = torch.tensor(self.code_token_ids, device=codes.device)[codes]
        edges = (inside.new_full((len(codes), 1), token_id) for token_id in (begin, end))
        return torch.cat([next(edges), inside, next(edges)], dim=1)


def check_codes(codes: Int[Tensor, "*shape"], codebook_size: int) -> None:
    """Raise ValueError for codes that the codebook does not have."""
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise ValueError(
            f"image codes are {int(codes.min())} to {int(codes.max())}; the codebook has 0 to {codebook_size - 1}. Use "
            "codes of the image tokenizer that this model was trained with"
        )


def splice_codes(
    token_ids: Int[Tensor, "batch tokens"],
    codes: Int[Tensor, "images image_tokens"],
    code_token_ids: Int[Tensor, "codebook"],
    placeholder: int,
) -> Int[Tensor, "batch tokens"]:
    """Replace the placeholders of a prompt, in reading order over the batch, by the token ids of the images' codes.

    Raises ValueError when placeholders and codes differ in number, or a code is out of range.
    """
    check_codes(codes, len(code_token_ids))
    positions = int((token_ids == placeholder).sum())
    if positions != codes.numel():
        raise ValueError(
            f"the prompt has {positions} image placeholders, but {len(codes)} images have {codes.numel()} codes; write "
            f"{codes.shape[1]} placeholders per image"
        )
    # exercise 11.2: codes in the place of placeholders
    return token_ids.masked_scatter(token_ids == placeholder, code_token_ids[codes])
    # end exercise


def codes_of_token_ids(
    token_ids: Int[Tensor, "*shape"], code_token_ids: Int[Tensor, "codebook"], vocab_size: int
) -> Int[Tensor, "*shape"]:
    """Return the code of each token, and −1 for tokens of text."""
    # exercise 11.3: token ids back to codes
    codes = torch.full((vocab_size,), -1, device=token_ids.device)
    codes[code_token_ids] = torch.arange(len(code_token_ids), device=token_ids.device)
    return codes[token_ids]
    # end exercise
