"""Digits as a frozen vision encoder would give them: one feature vector per overlapping window of the image."""

from collections.abc import Sequence

from shared.stdlib import digits
from shared.stdlib.ascii_image import ascii_image
from shared.stdlib.tensor import Tensor

WINDOW, STRIDE = 4, 2
GRID = (digits.SIDE - WINDOW) // STRIDE + 1
FEATURES = WINDOW * WINDOW + 2 * GRID


def window_features(images: Sequence[Sequence[int]]) -> Tensor:
    """Return [images, 9 windows, 22]: the 16 pixels of each window, and the one-hot row and column of its position."""
    side, values = digits.SIDE, []
    for image in images:
        for row in range(GRID):
            for column in range(GRID):
                corner = row * STRIDE * side + column * STRIDE
                for y in range(WINDOW):
                    start = corner + y * side
                    values += [pixel / digits.MAX_PIXEL for pixel in image[start : start + WINDOW]]
                values += [float(k == row) for k in range(GRID)] + [float(k == column) for k in range(GRID)]
    return Tensor(values, (len(images), GRID * GRID, FEATURES))


def draw_attention(image: Sequence[int], maps: Sequence[Sequence[float]]) -> str:
    """Return an image and attention maps side by side, in characters.

    maps  for each query its attention weight on every window; further weights are left out
    """
    side = digits.SIDE
    drawings = [ascii_image([image[row * side : (row + 1) * side] for row in range(side)])]
    # A pixel lies in up to four windows; the nearest of the nine represents it.
    nearest = [min(max(place - 1, 0) // STRIDE, GRID - 1) for place in range(side)]
    for weights in maps:
        drawings.append(
            ascii_image([[weights[nearest[y] * GRID + nearest[x]] for x in range(side)] for y in range(side)])
        )
    return "\n".join("  " + "  ".join(lines) for lines in zip(*drawings, strict=True))
