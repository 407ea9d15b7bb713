"""The independent judge: a small convolutional network that reads real digits, and what it says of images that nobody wrote."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from shared.training import Batches, RunOptions, TrainingConfig, train

Images = Float[Tensor, "batch pixels"]
FEATURES = 32


class Judge(nn.Module):
    """Images [batch, 64] of counts → `features` [batch, 32] → logits [batch, 10]: two convolutions and a matrix."""

    def __init__(self):
        super().__init__()
        self.near = nn.Conv2d(1, 16, 3, padding=1)
        self.far = nn.Conv2d(16, 32, 3, padding=1)
        self.gather = nn.Linear(32 * 4, FEATURES)
        self.head = nn.Linear(FEATURES, 10)

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        x = (images / 16).unflatten(1, (1, 8, 8))
        x = F.max_pool2d(F.relu(self.near(x)), 2)
        x = F.max_pool2d(F.relu(self.far(x)), 2)
        return F.relu(self.gather(x.flatten(1)))

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(images))


def train_judge(
    images: Images, labels: Tensor, *, steps: int, seed: int, device: str, folder: Path, resume: bool
) -> Judge:
    """A judge of real digits. The same seed gives the same judge, to the bit, whichever arm asks for one."""
    torch.manual_seed(seed)
    config = TrainingConfig(
        steps=steps, learning_rate=3e-3, warmup_steps=steps // 10, seed=seed, log_every=max(1, steps // 10)
    )
    batches = Batches(images, labels, batch_size=64, seed=seed)
    return train(
        Judge(),
        batches,
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        config,
        run=RunOptions(folder=folder, resume=resume, device=device, label="judge"),
    ).model.cpu()


@torch.no_grad()
def opinion(judge: Judge, images: Images, real: Float[Tensor, "real pixels"]) -> dict[str, float]:
    """What the judge says of images: how sure it is of each, how even its answers are, and how far they are from real ones.

    `confidence`: the mean of the largest probability. `classes`: e to the entropy of its mean answer, 10 when every digit
    comes equally often, 1 when only one does. `score`: sure of each and even over all, the inception score with this judge
    (arXiv:1606.03498, section 4), from 1 to 10. `distance`: between its features of the images and of real ones, as between
    two Gaussians (arXiv:1706.08500, eq. 6), 0 when they are alike.
    """
    probabilities = judge(images).double().softmax(dim=1)
    average = probabilities.mean(dim=0)
    surprise = torch.special.xlogy(probabilities, probabilities / average).sum(dim=1)
    return {
        "confidence": probabilities.amax(dim=1).mean().item(),
        "classes": torch.special.entr(average).sum().exp().item(),
        "score": surprise.mean().exp().item(),
        "distance": frechet_distance(judge.features(images).double(), judge.features(real).double()),
    }


def frechet_distance(one: Float[Tensor, "some features"], other: Float[Tensor, "others features"]) -> float:
    """|m₁ − m₂|² + trace(C₁ + C₂ − 2 (C₁ C₂)^½), of the Gaussians with the means and covariances of two clouds of features."""
    gap = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    first, second = one.T.cov(), other.T.cov()
    root = _square_root(first)
    # (C₁ C₂)^½ has the same trace as (C₁^½ C₂ C₁^½)^½, which is symmetric, so that eigenvalues give it safely.
    shared = _square_root(root @ second @ root)
    return (gap + first.trace() + second.trace() - 2 * shared.trace()).item()


def _square_root(symmetric: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
