"""Data sets as tensors, and the augmentation of photographs."""

import numpy as np
import pytest
import torch

from data.datasets.tensors import crop_and_flip, to_pixels


def test_bytes_become_channels_first_pixels():
    images = np.random.default_rng(0).integers(256, size=(2, 3, 4, 3), dtype=np.uint8)
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 3, 4)
    assert pixels[1, 2, 0, 3].item() == pytest.approx(images[1, 0, 3, 2] / 255)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_every_image_is_a_crop_of_the_padded_image_or_its_mirror_image(mode):
    images = torch.rand(40, 2, 5, 6)
    augmented = crop_and_flip(images, torch.Generator().manual_seed(0), padding=2, mode=mode)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode=mode)
    places = set()
    for image, crop in zip(padded, augmented, strict=True):
        crops = {
            (top, left, mirrored): image[:, top : top + 5, left : left + 6].flip(2 if mirrored else ())
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
        }
        (place,) = (place for place, expected in crops.items() if torch.equal(expected, crop))
        places.add(place)
    assert [len({place[axis] for place in places}) for axis in range(3)] == [5, 5, 2]
