"""Documents of images and text as sequences of tokens, and which image each token may look at.

A document is a list of parts in reading order: a text, or the number of an image.

    ["a page about two things ", 17, " this one is red. ", 4, " and this one is blue."]

Each image leaves one token, `<image>`, where it stands; what it shows comes in from the side (gated.py). A token sees the
latest image before it, and no other (arXiv:2204.14198, section 2.3). So nothing in the model knows how many images there
are: five in training, 32 when it is asked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from shared.attention import Mask
from shared.tokenizers import Tokenizer

Document = Sequence[str | int]


class Interleaved(NamedTuple):
    """A batch of documents, laid into rows.

    segments  which document of its row a token belongs to; −1 is padding
    looks     which image of its row a token looks at, counted from 0; −1 before the first of its document
    images    the numbers of the images in each row; −1 where a row has fewer than others
    """

    tokens: Int[Tensor, "rows length"]
    segments: Int[Tensor, "rows length"]
    looks: Int[Tensor, "rows length"]
    images: Int[Tensor, "rows most_images"]


def latest_image(
    tokens: Int[Tensor, "rows length"], segments: Int[Tensor, "rows length"], image_token: int
) -> Int[Tensor, "rows length"]:
    """Which image of its row each token looks at: the latest of its own document, −1 where there was none yet.

    Images are counted through a whole row; an image's own token looks at that image.
    """
    # exercise 4.3: each token's latest image
    is_image = tokens == image_token
    latest = is_image.cumsum(dim=1) - 1
    # The place of that image tells its document: it may be another's, where documents share a row.
    index = torch.arange(tokens.shape[1], device=tokens.device)
    place = torch.where(is_image, index, -1).cummax(dim=1).values
    document = segments.gather(1, place.clamp(min=0))
    return torch.where((place >= 0) & (document == segments) & (segments >= 0), latest, -1)
    # end exercise


def media_mask(looks: Int[Tensor, "batch tokens"], images: int, latents: int) -> Mask:
    """Tokens see the latents of their image: an image is a segment, and so is the text that looks at it."""
    # exercise 4.4: one segment for an image and its text
    of_latent = torch.arange(images, device=looks.device).repeat_interleave(latents)[None]
    return Mask(segment_q=looks, segment_k=of_latent)
    # end exercise


def sees(
    looks: Int[Tensor, "batch tokens"], images: int, latents: int
) -> Bool[Tensor, "batch tokens images_and_latents"]:
    """That mask spelled out, for a picture: which latents, image by image, each token sees."""
    mask = media_mask(looks, images, latents)
    return mask.visible(looks.shape[1], images * latents).expand(len(looks), -1, -1)


def interleave(
    documents: Sequence[Document], tokenizer: Tokenizer, *, begin: str, image: str, length: int | None = None
) -> Interleaved:
    """Lay documents into rows of `length` tokens, one behind the other as long as they fit; left out, one a row.

    begin, image  the special tokens that begin a document and stand for an image

    Raises ValueError when a document alone is longer than a row.
    """
    begin_token, image_token = tokenizer.special_tokens[begin], tokenizer.special_tokens[image]
    rows: list[list[list[int]]] = []
    numbers: list[list[int]] = []
    for document in documents:
        tokens = [begin_token]
        for part in document:
            tokens += [image_token] if isinstance(part, int) else tokenizer.encode(part)
        if length is not None and len(tokens) > length:
            raise ValueError(f"a document of {len(tokens)} tokens does not fit into rows of {length}")
        if length is None or not rows or sum(map(len, rows[-1])) + len(tokens) > length:
            rows.append([])
            numbers.append([])
        rows[-1].append(tokens)
        numbers[-1] += [part for part in document if isinstance(part, int)]
    longest = max(sum(map(len, row)) for row in rows) if length is None else length
    tokens, segments = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -1)
    images = torch.full((len(rows), max(1, *map(len, numbers))), -1)
    for row, (packed, shown) in enumerate(zip(rows, numbers, strict=True)):
        at = 0
        for segment, piece in enumerate(packed):
            tokens[row, at : at + len(piece)] = torch.tensor(piece)
            segments[row, at : at + len(piece)] = segment
            at += len(piece)
        images[row, : len(shown)] = torch.tensor(shown, dtype=torch.long)
    return Interleaved(tokens, segments, latest_image(tokens, segments, image_token), images)


def few_shot(shots: Sequence[tuple[int, str]], query: int, task: str = "") -> list[str | int]:
    """A prompt that names its task by examples: images with what is to be said of them, then an image with nothing (figure 8).

    shots  image and text of each example; a text ends as the answer is to end
    task   words before the first example, if any
    """
    parts: list[str | int] = [task] if task else []
    for image, text in shots:
        parts += [image, text]
    return [*parts, query]
