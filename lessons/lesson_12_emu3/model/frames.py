"""Images and videos as rows of tokens, and back (arXiv:2409.18869, section 2.3).

A frame of rows × columns codes is rows · (columns + 1) + 1 tokens: every row ends with [EOL], every frame with [EOF].

    [SOV] 2*3 [SOT]  c c c [EOL]  c c c [EOL]  [EOF]  [EOV]

A video has several such frames before [EOV], each of codes for four frames of pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from lessons.lesson_12_emu3.model.vocabulary import VisionMarkers

CODE, END_OF_LINE, END_OF_FRAME, END, EOS = range(5)
"""What a token after [SOT] is; the kinds that `token_kinds` returns."""


@dataclass(frozen=True)
class FrameGrid:
    """The size of an image or a video in codes. Raises ValueError for a size below 1."""

    rows: int
    columns: int
    frames: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.frames) < 1:
            raise ValueError(
                f"a grid of {self.frames} frames of {self.rows} × {self.columns} codes; expected at least 1 each"
            )

    @property
    def codes(self) -> int:
        """The number of codes."""
        return self.frames * self.rows * self.columns

    @property
    def tokens(self) -> int:
        """The number of tokens after [SOT], with [EOV] and the end of the sequence."""
        return self.frames * (self.rows * (self.columns + 1) + 1) + 2


def line_token_ids(token_ids: Int[Tensor, "rows columns"], end_of_line: int) -> Int[Tensor, "tokens"]:
    """Return the rows of one image one after another, each with its end: what takes the place of placeholders."""
    return frame_token_ids(token_ids[None], end_of_line, end_of_frame=None)


def frame_token_ids(
    token_ids: Int[Tensor, "frames rows columns"], end_of_line: int, end_of_frame: int | None
) -> Int[Tensor, "tokens"]:
    """Return frames as one row of tokens: each row of a frame ends with `end_of_line`, each frame with `end_of_frame`.

    token_ids     of the codes
    end_of_frame  None for no token there
    """
    # exercise 12.3: rows and frames end with markers
    frames, rows, _ = token_ids.shape
    lines = torch.cat([token_ids, token_ids.new_full((frames, rows, 1), end_of_line)], dim=2).flatten(1)
    if end_of_frame is not None:
        lines = torch.cat([lines, token_ids.new_full((frames, 1), end_of_frame)], dim=1)
    return lines.flatten()
    # end exercise


def token_kinds(frames: int, rows: int, columns: int) -> Int[Tensor, "tokens"]:
    """Return what each token after [SOT] is: CODE, END_OF_LINE, END_OF_FRAME, and at the end END and EOS, once each."""
    # exercise 12.4: which token comes where
    line = [CODE] * columns + [END_OF_LINE]
    frame = line * rows + [END_OF_FRAME]
    return torch.tensor(frame * frames + [END, EOS])
    # end exercise


def codes_of_tokens(
    token_ids: Int[Tensor, "batch tokens"], frames: int, rows: int, columns: int
) -> Int[Tensor, "batch frames rows columns"]:
    """Return the tokens of codes from those after [SOT]; what follows the last frame is left out.

    Raises ValueError for fewer tokens than the frames have.
    """
    per_frame = rows * (columns + 1) + 1
    if token_ids.shape[1] < frames * per_frame:
        raise ValueError(
            f"{token_ids.shape[1]} tokens; expected at least {frames * per_frame} for {frames} frames of {rows} × "
            f"{columns} codes, whose rows and frames have one marker each"
        )
    # exercise 12.5: tokens back to a grid of codes
    tokens = token_ids[:, : frames * per_frame].unflatten(1, (frames, per_frame))
    return tokens[:, :, :-1].unflatten(2, (rows, columns + 1))[..., :-1]
    # end exercise


def vision_token_ids(
    token_ids: Int[Tensor, "frames rows columns"], markers: VisionMarkers, size: Int[Tensor, "size_tokens"]
) -> Int[Tensor, "tokens"]:
    """Return a complete image or video: [SOV], its size as text, [SOT], its frames, [EOV].

    token_ids  of the codes
    size       token ids of the text that states the size (`size_text`)
    """
    device = token_ids.device
    before = torch.tensor([markers.start, *size.tolist(), markers.tokens], device=device)
    inside = frame_token_ids(token_ids, markers.end_of_line, markers.end_of_frame)
    return torch.cat([before, inside, torch.tensor([markers.end], device=device)])
