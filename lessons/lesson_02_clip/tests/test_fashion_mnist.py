"""The arm on Fashion-MNIST, without the data set: held-out classes are new combinations of known words."""

import numpy as np
import torch

from data.datasets.image_dataset import ImageDataset
from lessons.lesson_02_clip.experiment import fashion_mnist
from lessons.lesson_02_clip.experiment.fashion_mnist import DESCRIPTIONS, HELD_OUT, OPENINGS, TRAINED, ClassGroups
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from shared.course.context import RunContext


def test_held_out_descriptions_are_new_and_consist_of_training_words():
    training = [DESCRIPTIONS[label] for label in TRAINED]
    words = {word for text in training for word in text.split()}
    for label in HELD_OUT:
        text = DESCRIPTIONS[label]
        assert text not in training and set(text.split()) <= words
    assert len(set(DESCRIPTIONS)) == 10


def test_every_group_contains_each_class_once():
    images, labels = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 2), torch.arange(40) % 10
    tokenizer = CLIPTokenizer.train(DESCRIPTIONS, 100, context_length=fashion_mnist.CONTEXT_LENGTH)
    token_ids = torch.stack([tokenizer([opening + text for text in DESCRIPTIONS]) for opening in OPENINGS])
    classes = [0, 3, 5]
    batches = ClassGroups(images, labels, token_ids, classes, groups=4, seed=1)
    pixels, captions = batches(7)
    assert torch.equal(pixels, batches(7)[0]) and not torch.equal(pixels, batches(8)[0])
    assert (pixels[:, 0, 0, 0].long() % 10).tolist() == classes * 4
    for caption, label in zip(captions, classes * 4, strict=True):
        assert any(torch.equal(caption, token_ids[opening, label]) for opening in range(3))


def test_the_arm_runs_and_measures(monkeypatch, tmp_path):
    """On images whose brightness is the class, and with a few steps only."""
    labels = np.arange(200) % 10
    images = np.repeat(labels.astype(np.uint8)[:, None, None, None] * 25, 28 * 28, axis=1).reshape(200, 28, 28, 1)
    toy = ImageDataset("bright", images, labels, images[:50], labels[:50], tuple("0123456789"), verified=False)
    monkeypatch.setattr(fashion_mnist, "fashion_mnist", lambda: toy)
    context = RunContext(seed=0, data="fashion_mnist", device="cpu", folder=tmp_path / "arm")
    measured = fashion_mnist.train_fashion_mnist(context, steps=3)
    assert measured["chance"] == 0.1 and not measured["verified"]
    assert all(
        0.0 <= measured[name] <= 1.0
        for name in ("zero_shot_held_out", "zero_shot_seen", "linear_probe", "linear_probe_of_pixels")
    )
