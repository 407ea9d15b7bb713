"""Convert an opened image file to the RGB image that a person expects to see."""

from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB: rotated by its EXIF orientation, 16-bit gray as 8-bit, transparency on white.

    An animation gives its first frame. Image folders and the web service both decode images with this function.

    Raises what Pillow raises (OSError, SyntaxError, ValueError …) for a damaged image.
    """
    # Damaged metadata does not matter as long as the image itself can be read; if not, the next step raises again.
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits at 255, so that nearly everything would be white. For 16-bit color it
        # keeps the upper byte of each sample; this does the same for gray.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
