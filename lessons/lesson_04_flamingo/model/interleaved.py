"""Documents of images and text as token sequences, and the image that each token attends to.

A document is a list of parts in reading order, each a text or the index of an image:

    ["a page about two objects ", 17, " this one is red. ", 4, " and this one is blue."]

Each image is represented by one token, `<image>`; its content enters through cross-attention
(gated_cross_attention.py). A token attends to the latest image before it and to no other (arXiv:2204.14198, section
2.3). So the model does not depend on the number of images: five in training, 32 at test time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from shared.attention import Mask
from shared.tokenizers import Tokenizer

Document = Sequence[str | int]


class InterleavedBatch(NamedTuple):
    """Documents packed into rows of tokens.

    segments     document of its row that a token belongs to; −1 is padding
    image_index  image of its row that a token attends to, counted from 0; −1 before the first image of its document
    images       indices of the images in each row; −1 fills rows with fewer images
    """

    token_ids: Int[Tensor, "rows length"]
    segments: Int[Tensor, "rows length"]
    image_index: Int[Tensor, "rows length"]
    images: Int[Tensor, "rows most_images"]


def latest_image_index(
    token_ids: Int[Tensor, "rows length"], segments: Int[Tensor, "rows length"], image_token_id: int
) -> Int[Tensor, "rows length"]:
    """Return the image that each token attends to: the latest of its own document, or −1 before the first.

    Images are counted over the whole row; an `<image>` token attends to its own image.
    """
    # exercise 4.3: the index of each token's latest image
    is_image = token_ids == image_token_id
    latest = is_image.cumsum(dim=1) - 1
    # The position of that image tells its document, which may be another one of the same row.
    index = torch.arange(token_ids.shape[1], device=token_ids.device)
    position = torch.where(is_image, index, -1).cummax(dim=1).values
    document = segments.gather(1, position.clamp(min=0))
    return torch.where((position >= 0) & (document == segments) & (segments >= 0), latest, -1)
    # end exercise


def cross_attention_mask(image_index: Int[Tensor, "batch tokens"], images: int, latents: int) -> Mask:
    """Return the mask by which tokens attend to the latents of their image: both belong to the image's segment."""
    # exercise 4.4: one segment for an image and its text
    latent_segments = torch.arange(images, device=image_index.device).repeat_interleave(latents)[None]
    return Mask(segment_q=image_index, segment_k=latent_segments)
    # end exercise


def cross_attention_matrix(
    image_index: Int[Tensor, "batch tokens"], images: int, latents: int
) -> Bool[Tensor, "batch tokens images_and_latents"]:
    """Return that mask as a dense matrix: True where a token attends to a latent, image by image."""
    mask = cross_attention_mask(image_index, images, latents)
    return mask.visible(image_index.shape[1], images * latents).expand(len(image_index), -1, -1)


def interleave(
    documents: Sequence[Document], tokenizer: Tokenizer, *, begin: str, image: str, length: int | None = None
) -> InterleavedBatch:
    """Pack documents into rows of `length` tokens, in order; with None, one document per row.

    begin, image  special tokens that begin a document and represent an image

    Raises ValueError when a document is longer than a row.
    """
    begin_id, image_id = tokenizer.special_tokens[begin], tokenizer.special_tokens[image]
    rows: list[list[list[int]]] = []
    images_per_row: list[list[int]] = []
    for document in documents:
        tokens = [begin_id]
        for part in document:
            tokens += [image_id] if isinstance(part, int) else tokenizer.encode(part)
        if length is not None and len(tokens) > length:
            raise ValueError(
                f"a document of {len(tokens)} tokens does not fit into rows of {length}; split it, or make rows longer"
            )
        if length is None or not rows or sum(map(len, rows[-1])) + len(tokens) > length:
            rows.append([])
            images_per_row.append([])
        rows[-1].append(tokens)
        images_per_row[-1] += [part for part in document if isinstance(part, int)]
    longest = max(sum(map(len, row)) for row in rows) if length is None else length
    token_ids, segments = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), -1)
    images = torch.full((len(rows), max(1, *map(len, images_per_row))), -1)
    for row, (packed, row_images) in enumerate(zip(rows, images_per_row, strict=True)):
        start = 0
        for segment, tokens in enumerate(packed):
            token_ids[row, start : start + len(tokens)] = torch.tensor(tokens)
            segments[row, start : start + len(tokens)] = segment
            start += len(tokens)
        images[row, : len(row_images)] = torch.tensor(row_images, dtype=torch.long)
    return InterleavedBatch(token_ids, segments, latest_image_index(token_ids, segments, image_id), images)


def few_shot_prompt(examples: Sequence[tuple[int, str]], query_image: int, task: str = "") -> list[str | int]:
    """Return a prompt that defines its task by examples: images with texts, then an image without one (figure 8).

    examples  image and text of each; a text ends as the answer should end
    task      text before the first example, if any
    """
    parts: list[str | int] = [task] if task else []
    for image, text in examples:
        parts += [image, text]
    return [*parts, query_image]
