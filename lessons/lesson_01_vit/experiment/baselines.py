"""The simpler rivals: what one gets without a Vision Transformer, on the same held-out images."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_01_vit.experiment.images import Images, read_images


def measure_baselines(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, other_writers: bool = False
) -> dict:
    """Nearest neighbor and softmax regression on raw pixels (folder and resume are not used)."""
    images = read_images(data, other_writers=other_writers)
    return {
        "nearest_neighbor": nearest_neighbor(images, device),
        "softmax_regression": softmax_regression(images, device, seed),
    }


def nearest_neighbor(images: Images, device: str) -> float:
    """Accuracy of giving each held-out image the label of the training image that is nearest in pixels.

    Among small, centered, well-separated digits this is hard to beat, which makes it the honest rival.
    """
    train, labels = images.train.flatten(1).to(device), images.train_labels.to(device)
    found = [
        labels[torch.cdist(part.to(device), train).argmin(dim=1)].cpu() for part in images.test.flatten(1).split(500)
    ]
    return _share(torch.cat(found), images.test_labels)


def softmax_regression(images: Images, device: str, seed: int, epochs: int = 40) -> float:
    """Accuracy of one linear layer on all pixels at once, trained to the end."""
    torch.manual_seed(seed)
    pixels, labels = images.standardize(images.train).flatten(1).to(device), images.train_labels.to(device)
    layer = nn.Linear(pixels.shape[1], len(images.class_names)).to(device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels), device=device).split(128):
            loss = F.cross_entropy(layer(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = layer(images.standardized_test.flatten(1).to(device))
    return _share(logits.argmax(dim=1).cpu(), images.test_labels)


def _share(found: Tensor, true: Tensor) -> float:
    return (found == true).float().mean().item()
