"""The simpler rival: two linear classifiers of pixels, one for the colour and one for the shape, taught with labels.

Put together they name combinations that neither has seen, as the towers should, and they were told which words are
colours and which are shapes, as the towers were not.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.toybox.heldout import sample_scenes
from data.toybox.scene import SHAPES
from data.toybox.tensors import normalize_pixels, render_tensors
from lessons.lesson_02_clip.experiment.measure import exam
from lessons.lesson_02_clip.experiment.pairs import CLASSES


def measure_baselines(
    *, seed: int, data: str, device: str, folder: Path, resume: bool, scenes: int, epochs: int
) -> dict:
    """Colour and shape by softmax regression of all pixels (folder, data and resume are not used)."""
    torch.manual_seed(seed)
    training = sample_scenes("train", seed, scenes, (1, 1))
    pixels = normalize_pixels(render_tensors(training)).flatten(1).to(device)
    labels = torch.tensor(
        [CLASSES.index((scene.objects[0].colour, scene.objects[0].shape)) for scene in training], device=device
    )
    asked = exam("test")
    colours = softmax_regression(pixels, labels // len(SHAPES), epochs)
    shapes = softmax_regression(pixels, labels % len(SHAPES), epochs)
    held_out = asked.pixels.flatten(1).to(device)
    with torch.no_grad():
        named = colours(held_out).argmax(dim=1) * len(SHAPES) + shapes(held_out).argmax(dim=1)
    return {"zero_shot": (named.cpu() == asked.classes[:, 0]).float().mean().item(), "chance": 1 / len(CLASSES)}


def softmax_regression(inputs: Tensor, labels: Tensor, epochs: int) -> nn.Linear:
    """One linear layer, trained to tell 8 classes."""
    layer = nn.Linear(inputs.shape[1], 8).to(inputs.device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), device=inputs.device).split(128):
            loss = F.cross_entropy(layer(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer
