"""A picture file as people mean it to be seen: for folders of pictures and for what strangers send to a service alike."""

from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB, turned as the camera was held; 16 bits of gray as 8; what is transparent shows white paper.

    Of a film it is the first picture. Raises what Pillow raises (OSError, SyntaxError, ValueError …) for a damaged one.
    """
    with suppress(
        Exception
    ):  # an illegible note on a picture, which may be legible: if it is not, what follows raises again
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow's own conversion cuts 16 bits off at 255, so nearly everything would be white. Of colour it keeps the upper
        # byte of each sample; so here.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
