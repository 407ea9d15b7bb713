"""What every data set of images comes as."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class ImageDataset:
    """Images with one label each, in two parts: one to train on, one that is never trained on.

    Images are bytes from 0 to 255, channels last (1: gray, 3: red, green, blue); label k means `class_names[k]`.
    `verified` tells whether the files are the official ones, byte for byte; where it is False, `note` says what
    they are instead, and results must say so too.
    """

    name: str
    train_images: UInt8[np.ndarray, "train height width channels"]
    train_labels: Int64[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width channels"]
    test_labels: Int64[np.ndarray, " test"]
    class_names: tuple[str, ...]
    verified: bool
    note: str = ""
