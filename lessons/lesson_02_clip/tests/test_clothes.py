"""The arm on real clothes, without the clothes: that what is held out is new as a combination, and old word by word."""

import numpy as np
import torch

from data.datasets.image_dataset import ImageDataset
from lessons.lesson_02_clip.experiment import clothes
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer


def test_held_out_descriptions_are_new_and_made_of_words_that_training_uses():
    seen = [text for label, text in enumerate(clothes.DESCRIPTIONS) if label not in clothes.HELD_OUT]
    words = {word for text in seen for word in text.split()}
    for label in clothes.HELD_OUT:
        text = clothes.DESCRIPTIONS[label]
        assert text not in seen and set(text.split()) <= words
    assert len(set(clothes.DESCRIPTIONS)) == 10


def test_every_group_shows_each_class_once():
    images, labels = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 2), torch.arange(40) % 10
    tokenizer = CLIPTokenizer.train(clothes.DESCRIPTIONS, 100, context_length=clothes.CONTEXT)
    tokens = torch.stack([tokenizer([opening + text for text in clothes.DESCRIPTIONS]) for opening in clothes.OPENINGS])
    classes = [0, 3, 5]
    batches = clothes.OneOfEach(images, labels, tokens, classes, groups=4, seed=1)
    pictures, captions = batches(7)
    assert torch.equal(pictures, batches(7)[0]) and not torch.equal(pictures, batches(8)[0])
    assert (pictures[:, 0, 0, 0].long() % 10).tolist() == classes * 4
    for caption, label in zip(captions, classes * 4, strict=True):
        assert any(torch.equal(caption, tokens[opening, label]) for opening in range(3))


def test_the_arm_runs_and_measures(monkeypatch, tmp_path):
    """On pictures whose brightness is the class: a probe reads that, and a few steps name little."""
    labels = np.arange(200) % 10
    images = np.repeat(labels.astype(np.uint8)[:, None, None, None] * 25, 28 * 28, axis=1).reshape(200, 28, 28, 1)
    toy = ImageDataset("bright", images, labels, images[:50], labels[:50], tuple("0123456789"), verified=False)
    monkeypatch.setattr(clothes, "fashion_mnist", lambda: toy)
    measured = clothes.train_clothes(
        seed=0, data="fashion_mnist", device="cpu", folder=tmp_path / "arm", resume=False, steps=3
    )
    assert measured["chance"] == 0.1 and not measured["verified"]
    assert all(
        0.0 <= measured[name] <= 1.0
        for name in ("zero_shot_held_out", "zero_shot_seen", "linear_probe", "linear_probe_of_pixels")
    )
