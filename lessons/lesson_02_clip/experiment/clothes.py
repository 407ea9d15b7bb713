"""Real pictures: Fashion-MNIST, with two of its ten classes held out of training, and named from their descriptions alone.

A class's name tells a model nothing when it has never read it. So captions describe: a sneaker is "a low closed shoe". In
training there are low shoes (sandals) and closed ones (boots), and none that is both.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from data.datasets.fashion_mnist import fashion_mnist
from lessons.lesson_02_clip.experiment.contrast import contrastive_loss
from lessons.lesson_02_clip.experiment.measure import encoded
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from lessons.lesson_02_clip.model.zero_shot import class_vectors
from shared.training import RunOptions, TrainingConfig, train

# In the order of the data set's labels.
DESCRIPTIONS = (
    "a plain top with short sleeves",
    "a garment for the legs",
    "a plain top with long sleeves",
    "a long garment for the whole body",
    "an open top with long sleeves",
    "a low open shoe",
    "a buttoned top with long sleeves",
    "a low closed shoe",
    "a thing to carry by hand",
    "a high closed shoe",
)
HELD_OUT = (2, 7)  # pullover: plain as a T-shirt, sleeves as a coat's; sneaker: low as a sandal, closed as a boot
OPENINGS = ("", "a picture of ", "this is ")
CONTEXT = 24


class OneOfEach:
    """Batches in groups that show each class once: so no caption comes twice within what is contrasted."""

    def __init__(self, images: Float[Tensor, "images 1 height width_px"], labels: Int[Tensor, "images"], tokens: Int[Tensor, "openings classes tokens"], classes: list[int], groups: int, seed: int):  # fmt: skip
        self.images, self.tokens, self.classes, self.groups, self.seed = images, tokens, classes, groups, seed
        self.rows = [(labels == label).nonzero().flatten() for label in classes]

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        dice = np.random.default_rng([self.seed, number])
        shape = (self.groups, len(self.classes))
        chosen = torch.stack(
            [rows[torch.from_numpy(dice.integers(len(rows), size=self.groups))] for rows in self.rows], dim=1
        )
        openings = torch.from_numpy(dice.integers(len(OPENINGS), size=shape))
        return self.images[chosen.flatten()], self.tokens[openings, torch.tensor(self.classes)].flatten(0, 1)


def train_clothes(*, seed: int, data: str, device: str, folder: Path, resume: bool, steps: int) -> dict:
    """Train towers on eight classes; name all ten from their descriptions, and read them with a linear probe."""
    torch.manual_seed(seed)
    found = fashion_mnist()
    images, test = (
        torch.from_numpy(side).permute(0, 3, 1, 2).float() / 128 - 0.6
        for side in (found.train_images, found.test_images)
    )
    labels, test_labels = torch.from_numpy(found.train_labels), torch.from_numpy(found.test_labels)
    seen = [label for label in range(len(DESCRIPTIONS)) if label not in HELD_OUT]
    tokenizer = CLIPTokenizer.train(
        [opening + DESCRIPTIONS[label] for opening in OPENINGS for label in seen], 200, context_length=CONTEXT
    )
    # The end is padded on to one length: behind it nothing counts.
    tokens = torch.stack([tokenizer([opening + text for text in DESCRIPTIONS]) for opening in OPENINGS])
    sizes = {"width": 64, "heads": 4, "mlp_dim": 128, "activation": "gelu"}
    model = CLIP(
        CLIPConfig(
            clip_vision_config(image_size=28, patch_size=4, channels=1, depth=3, **sizes),
            TextEncoderConfig(
                vocab_size=len(tokenizer.vocab), context_length=CONTEXT, depth=2, end_token=tokenizer.end, **sizes
            ),
            embedding=64,
        )
    )
    config = TrainingConfig(
        steps=steps, learning_rate=5e-3, optimizer="muon", warmup_steps=steps // 10, betas=(0.9, 0.98), seed=seed
    )
    batches = OneOfEach(images, labels, tokens, seen, groups=8, seed=seed)
    result = train(
        model,
        batches,
        lambda model, batch: contrastive_loss(model, batch, len(seen)),
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
    )
    model = result.model
    device = model.log_scale.device
    classes = class_vectors(
        lambda rows: encoded(model.encode_texts, rows, device), tokenizer, DESCRIPTIONS, [f"{o}{{}}" for o in OPENINGS]
    )
    named = (encoded(model.encode_images, test, device) @ classes.T).argmax(dim=1)
    right, new = named == test_labels, torch.isin(test_labels, torch.tensor(HELD_OUT))
    return {
        "zero_shot_held_out": right[new].float().mean().item(),
        "zero_shot_seen": right[~new].float().mean().item(),
        "chance": 1 / len(DESCRIPTIONS),
        "linear_probe": linear_probe(model, images, labels, test, test_labels, device),
        "linear_probe_of_pixels": probe(images.flatten(1), labels, test.flatten(1), test_labels),
        "verified": found.verified,
    }


def linear_probe(
    model: CLIP, images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, device: torch.device
) -> float:
    """Accuracy of one linear layer on the frozen image tower's vectors, all ten classes (arXiv:2103.00020, section 3.2)."""
    return probe(
        encoded(model.image_encoder, images, device), labels, encoded(model.image_encoder, test, device), test_labels
    )


def probe(inputs: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Accuracy of softmax regression on given features, standardized."""
    mean, spread = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    inputs, test = (inputs - mean) / spread, (test - mean) / spread
    layer = torch.nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-3)
    for _ in range(5):
        for rows in torch.randperm(len(inputs)).split(256):
            loss = F.cross_entropy(layer(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (layer(test).argmax(dim=1) == test_labels).float().mean().item()
