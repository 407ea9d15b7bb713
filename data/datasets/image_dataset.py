"""The common type of all labeled image data sets."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class ImageDataset:
    """Images with one label each, split into training and test images.

    Images are bytes from 0 to 255, channels last (1: gray, 3: red, green, blue); label k means `class_names[k]`.
    `verified` is True when the files are the official ones, byte for byte; otherwise `note` describes them, and results
    must state it.
    """

    name: str
    train_images: UInt8[np.ndarray, "train height width channels"]
    train_labels: Int64[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width channels"]
    test_labels: Int64[np.ndarray, " test"]
    class_names: tuple[str, ...]
    verified: bool
    note: str = ""
