"""The arm on Fashion-MNIST: two of ten classes are held out of training and predicted from their descriptions.

A class's name is useless to a model that has never read it, so captions describe: a sneaker is "a low closed shoe".
Training has low shoes (sandals) and closed ones (boots), but none that is both.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from data.datasets.fashion_mnist import fashion_mnist
from lessons.lesson_02_clip.experiment.evaluate import encode
from lessons.lesson_02_clip.experiment.train import contrastive_loss
from lessons.lesson_02_clip.model import CLIP, CLIPConfig, TextEncoderConfig, clip_vision_config
from lessons.lesson_02_clip.model.tokenizer import CLIPTokenizer
from lessons.lesson_02_clip.model.zero_shot import class_vectors, classify
from shared.course.context import RunContext
from shared.training import TrainingConfig, train

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
TRAINED = [label for label in range(len(DESCRIPTIONS)) if label not in HELD_OUT]
OPENINGS = ("", "a picture of ", "this is ")
CONTEXT_LENGTH = 24


class ClassGroups:
    """Batches in groups that contain each class once, so that no caption occurs twice among contrasted pairs.

    token_ids  description of each class with each opening
    classes    labels of the classes to train on
    """

    def __init__(
        self,
        images: Float[Tensor, "images 1 height width_px"],
        labels: Int[Tensor, "images"],
        token_ids: Int[Tensor, "openings classes tokens"],
        classes: list[int],
        *,
        groups: int,
        seed: int,
    ):
        self.images, self.token_ids, self.classes, self.groups, self.seed = images, token_ids, classes, groups, seed
        self.rows = [(labels == label).nonzero().flatten() for label in classes]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng([self.seed, step])
        indices = torch.stack(
            [rows[torch.from_numpy(generator.integers(len(rows), size=self.groups))] for rows in self.rows], dim=1
        )
        openings = torch.from_numpy(generator.integers(len(OPENINGS), size=(self.groups, len(self.classes))))
        token_ids = self.token_ids[openings, torch.tensor(self.classes)].flatten(0, 1)
        return self.images[indices.flatten()], token_ids


def train_fashion_mnist(context: RunContext, *, steps: int) -> dict:
    """Train on eight classes; predict all ten from their descriptions, and measure a linear probe."""
    torch.manual_seed(context.seed)
    dataset = fashion_mnist()
    images, test = (
        torch.from_numpy(side).permute(0, 3, 1, 2).float() / 128 - 0.6
        for side in (dataset.train_images, dataset.test_images)
    )
    labels, test_labels = torch.from_numpy(dataset.train_labels), torch.from_numpy(dataset.test_labels)
    texts = [opening + DESCRIPTIONS[label] for opening in OPENINGS for label in TRAINED]
    tokenizer = CLIPTokenizer.train(texts, 200, context_length=CONTEXT_LENGTH)
    # Padded to one length; tokens after the end token have no effect.
    token_ids = torch.stack([tokenizer([opening + text for text in DESCRIPTIONS]) for opening in OPENINGS])
    result = train(
        build_model(tokenizer),
        ClassGroups(images, labels, token_ids, TRAINED, groups=8, seed=context.seed),
        lambda model, batch: contrastive_loss(model, batch, len(TRAINED)),
        TrainingConfig(
            steps=steps,
            learning_rate=5e-3,
            optimizer="muon",
            warmup_steps=steps // 10,
            betas=(0.9, 0.98),
            seed=context.seed,
        ),
        run=context.run_options(),
    )
    model = result.model
    device = model.log_scale.device
    templates = [f"{opening}{{}}" for opening in OPENINGS]
    classes = class_vectors(lambda rows: encode(model.encode_texts, rows, device), tokenizer, DESCRIPTIONS, templates)
    predictions = classify(encode(model.encode_images, test, device), classes)
    correct, held_out = predictions == test_labels, torch.isin(test_labels, torch.tensor(HELD_OUT))
    features, test_features = (encode(model.image_encoder, side, device) for side in (images, test))
    return {
        "zero_shot_held_out": correct[held_out].float().mean().item(),
        "zero_shot_seen": correct[~held_out].float().mean().item(),
        "chance": 1 / len(DESCRIPTIONS),
        "linear_probe": linear_probe(features, labels, test_features, test_labels),
        "linear_probe_of_pixels": linear_probe(images.flatten(1), labels, test.flatten(1), test_labels),
        "verified": dataset.verified,
    }


def build_model(tokenizer: CLIPTokenizer) -> CLIP:
    """Build a small CLIP for gray images of 28×28 pixels."""
    sizes = {"width": 64, "heads": 4, "mlp_dim": 128, "activation": "gelu"}
    image = clip_vision_config(image_size=28, patch_size=4, channels=1, depth=3, **sizes)
    text = TextEncoderConfig(
        vocab_size=len(tokenizer.vocab), context_length=CONTEXT_LENGTH, depth=2, end_token=tokenizer.end, **sizes
    )
    return CLIP(CLIPConfig(image, text, embedding=64))


def linear_probe(inputs: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the accuracy of softmax regression on standardized, frozen features (arXiv:2103.00020, section 3.2)."""
    mean, std = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
    inputs, test = (inputs - mean) / std, (test - mean) / std
    layer = nn.Linear(inputs.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-3)
    for _ in range(5):
        for rows in torch.randperm(len(inputs)).split(256):
            loss = F.cross_entropy(layer(inputs[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (layer(test).argmax(dim=1) == test_labels).float().mean().item()
