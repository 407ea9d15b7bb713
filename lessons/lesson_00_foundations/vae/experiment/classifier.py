"""An independent classifier of real digits, and the scores of generated images that are computed with it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lessons.lesson_00_foundations.vae.experiment.data import TRIALS, Images
from shared.course.context import RunContext
from shared.training import Batches, TrainingConfig, train

FEATURES = 32
Flattened = Float[Tensor, "batch pixels"]


class DigitClassifier(nn.Module):
    """Classify images [batch, 64] of counts: two convolutions and a linear layer give `features` [batch, 32]."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.project = nn.Linear(32 * 4, FEATURES)
        self.head = nn.Linear(FEATURES, 10)

    def features(self, images: Flattened) -> Float[Tensor, "batch features"]:
        """Return the features that the head classifies."""
        x = (images / TRIALS).unflatten(1, (1, 8, 8))
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.project(x.flatten(1)))

    def forward(self, images: Flattened) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(images))


def train_classifier(context: RunContext, images: Images, steps: int) -> DigitClassifier:
    """Train a classifier of real digits. The same seed gives bit-identical weights in every arm."""
    torch.manual_seed(context.seed)
    config = TrainingConfig(
        steps=steps,
        learning_rate=3e-3,
        warmup_steps=steps // 10,
        seed=context.seed,
        log_every=max(1, steps // 10),
    )
    return train(
        DigitClassifier(),
        Batches(images.train, images.train_labels, batch_size=64, seed=context.seed),
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        config,
        run=context.subfolder("classifier").run_options(),
    ).model.cpu()


@torch.no_grad()
def score_images(
    classifier: DigitClassifier, images: Flattened, real: Float[Tensor, "real pixels"]
) -> dict[str, float]:
    """Score images by the classifier's predictions and by their features' distance from those of real images.

    confidence        the mean of the largest probability
    classes           e to the entropy of the mean prediction: 10 when all digits are equally frequent, 1 for only one
    inception_score   with this classifier, from 1 to 10: confident on each image, even over all (arXiv:1606.03498,
                      section 4)
    frechet_distance  between Gaussians fitted to the features (arXiv:1706.08500, eq. 6); 0 when they are equal
    """
    probabilities = classifier(images).double().softmax(dim=1)
    mean = probabilities.mean(dim=0)
    divergences = torch.special.xlogy(probabilities, probabilities / mean).sum(dim=1)
    return {
        "confidence": probabilities.amax(dim=1).mean().item(),
        "classes": torch.special.entr(mean).sum().exp().item(),
        "inception_score": divergences.mean().exp().item(),
        "frechet_distance": frechet_distance(classifier.features(images).double(), classifier.features(real).double()),
    }


def frechet_distance(
    features: Float[Tensor, "images features"], real_features: Float[Tensor, "real features"]
) -> float:
    """Return |m₁ − m₂|² + trace(C₁ + C₂ − 2 (C₁ C₂)^½) of the means and covariances of two sets of features."""
    mean_term = (features.mean(dim=0) - real_features.mean(dim=0)).square().sum()
    covariance, real_covariance = features.T.cov(), real_features.T.cov()
    root = _square_root(covariance)
    # (C₁ C₂)^½ has the same trace as (C₁^½ C₂ C₁^½)^½, which is symmetric, so that `eigh` applies.
    product_root = _square_root(root @ real_covariance @ root)
    return (mean_term + covariance.trace() + real_covariance.trace() - 2 * product_root.trace()).item()


def _square_root(symmetric: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
