"""The accuracy of an image classifier."""

import torch
from torch import nn

from shared.evaluation import accuracy


def test_the_fraction_of_correct_labels_is_the_same_for_every_batch_size():
    model, images = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)), torch.randn(7, 3, 2, 2)
    labels = model.eval()(images).argmax(dim=1)
    labels[:3] = (labels[:3] + 1) % 3
    for batch_size in (1, 3, 500):
        assert accuracy(model.train(), images, labels, batch_size=batch_size) == torch.tensor(4 / 7).item()
    assert not model.training
