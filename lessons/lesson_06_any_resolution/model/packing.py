"""Rows of patches of several images: bin packing, segments, and the batch that the encoder reads.

Packing fills the rows of a batch with whole images one after another (arXiv:2307.06304, section 2.3). A padded batch is
the special case of one image per row. Either way each token carries the number of its image within the row, and
attention stays within these segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lessons.lesson_06_any_resolution.model.patches import ImagePatches
from shared.attention import Mask

STRATEGIES = ("first-fit", "first-fit-decreasing", "best-fit-decreasing")

# ── Bin packing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def assign_rows(lengths: Sequence[int], row_length: int, strategy: str = "first-fit-decreasing") -> list[list[int]]:
    """Assign images to rows greedily; return the indices of each row's images, in the order of their tokens.

    lengths     number of tokens of each image
    row_length  tokens that fit into one row
    strategy    "first-fit": each image, in the given order, goes into the first row with enough space (NaViT);
                "first-fit-decreasing": the same, longest images first;
                "best-fit-decreasing": longest first, each into the row with the least remaining space that is
                enough, the first among equals.
                Images of equal length keep their order. An image that fits into no row starts a new one.

    Raises ValueError for an image without tokens, or one that is longer than a row.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    _check_lengths(lengths, row_length)
    # exercise 6.6: bin packing
    order = list(range(len(lengths)))
    if strategy != "first-fit":
        order.sort(key=lambda image: -lengths[image])
    rows: list[list[int]] = []
    space: list[int] = []
    for image in order:
        fitting = [row for row in range(len(rows)) if space[row] >= lengths[image]]
        if not fitting:
            rows.append([image])
            space.append(row_length - lengths[image])
            continue
        row = min(fitting, key=space.__getitem__) if strategy == "best-fit-decreasing" else fitting[0]
        rows[row].append(image)
        space[row] -= lengths[image]
    return rows
    # end exercise


def _check_lengths(lengths: Sequence[int], row_length: int) -> None:
    for image, length in enumerate(lengths):
        if not 1 <= length <= row_length:
            raise ValueError(
                f"image {image} has {length} tokens, and a row holds 1 to {row_length}; "
                "resize the image to a smaller budget, or use longer rows"
            )


def row_of_image(
    lengths: Sequence[int], row_length: int, strategy: str = "first-fit-decreasing"
) -> Int[Tensor, "images"]:
    """Return the row to which each image is assigned. Arguments and errors are those of `assign_rows`."""
    row_of = torch.empty(len(lengths), dtype=torch.long)
    for row, images in enumerate(assign_rows(lengths, row_length, strategy)):
        row_of[images] = row
    return row_of


def packing_efficiency(lengths: Sequence[int], rows: int, row_length: int) -> float:
    """Return the fraction of the tokens in `rows` rows that are patches of images and not padding."""
    return sum(lengths) / (rows * row_length)


# ── Segments ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def row_segments(
    rows: Sequence[Sequence[int]], lengths: Sequence[int], row_length: int
) -> tuple[Int[Tensor, "rows {row_length}"], Int[Tensor, "images 2"]]:
    """Return the segment of every token, and where each image is.

    rows  indices of each row's images, as `assign_rows` returns them

    The first image of a row has segment 0, the second 1, and so on; padding has −1. The place of an image is its row
    and its segment, in the order of the images and not of the rows.
    """
    # exercise 6.7: segments of packed rows
    segments = torch.full((len(rows), row_length), -1)
    places = torch.empty(len(lengths), 2, dtype=torch.long)
    for row, images in enumerate(rows):
        start = 0
        for segment, image in enumerate(images):
            segments[row, start : start + lengths[image]] = segment
            places[image] = torch.tensor([row, segment])
            start += lengths[image]
    return segments, places
    # end exercise


def image_of_token(segments: Int[Tensor, "rows tokens"], places: Int[Tensor, "images 2"]) -> Int[Tensor, "rows tokens"]:
    """Return the index of each token's image, −1 for padding: the inverse of `places`."""
    # A row never has more images than tokens; padding reads the last column, which no image uses.
    slots = segments.shape[1] + 1
    image_at = torch.full((segments.shape[0], slots), -1, device=segments.device)
    image_at[places[:, 0], places[:, 1]] = torch.arange(len(places), device=segments.device)
    return image_at.gather(1, segments % slots)


# ── The batch ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Rows of patches, padded or packed; outputs per image are in the order of `grids`, whatever row an image is in.

    patches      pixels of each token's patch; zeros for padding
    coordinates  row and column of each patch in its image
    segments     number of each token's image within the row; −1 for padding
    grids        rows and columns of patches of each image
    places       row and segment of each image
    image_index  index of each token's image; −1 for padding
    """

    patches: Float[Tensor, "rows tokens patch_pixels"]
    coordinates: Int[Tensor, "rows tokens 2"]
    segments: Int[Tensor, "rows tokens"]
    grids: Int[Tensor, "images 2"]
    places: Int[Tensor, "images 2"]
    image_index: Int[Tensor, "rows tokens"]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.grids)

    @property
    def mask(self) -> Mask:
        """The block-diagonal mask: a token attends to the tokens of its own image."""
        return Mask(segment_q=self.segments, segment_k=self.segments)

    @property
    def efficiency(self) -> float:
        """Fraction of the tokens that are not padding."""
        return (self.segments >= 0).float().mean().item()

    def split(self, tokens: Float[Tensor, "rows tokens width"]) -> list[Float[Tensor, "image_tokens width"]]:
        """Return the tokens of each image, in the order of the images."""
        return [tokens[row][self.segments[row] == segment] for row, segment in self.places.tolist()]

    def to(self, device: torch.device | str) -> "PatchBatch":
        """Return the same batch on another device."""
        return PatchBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def pack(images: Sequence[ImagePatches], row_length: int, strategy: str = "first-fit-decreasing") -> PatchBatch:
    """Pack images into rows of `row_length` tokens. Raises as `assign_rows` does, and for no images."""
    return _fill_rows(images, assign_rows([len(image) for image in images], row_length, strategy), row_length)


def pad(images: Sequence[ImagePatches], row_length: int | None = None) -> PatchBatch:
    """Put each image into a row of its own, padded to `row_length` tokens, or to the longest image.

    Raises ValueError for no images, an image without tokens, or one that is longer than a row.
    """
    lengths = [len(image) for image in images]
    row_length = max(lengths, default=1) if row_length is None else row_length
    _check_lengths(lengths, row_length)
    return _fill_rows(images, [[image] for image in range(len(images))], row_length)


def _fill_rows(images: Sequence[ImagePatches], rows: Sequence[Sequence[int]], row_length: int) -> PatchBatch:
    if not images:
        raise ValueError("a batch needs at least one image, got none")
    segments, places = row_segments(rows, [len(image) for image in images], row_length)
    device = images[0].patches.device
    segments, places = segments.to(device), places.to(device)
    patches = images[0].patches.new_zeros(*segments.shape, images[0].patches.shape[1])
    coordinates = images[0].coordinates.new_zeros(*segments.shape, 2)
    for row, members in enumerate(rows):
        joined = torch.cat([images[image].patches for image in members])
        patches[row, : len(joined)] = joined
        coordinates[row, : len(joined)] = torch.cat([images[image].coordinates for image in members])
    grids = torch.tensor([image.grid for image in images], device=device)
    return PatchBatch(patches, coordinates, segments, grids, places, image_of_token(segments, places))
