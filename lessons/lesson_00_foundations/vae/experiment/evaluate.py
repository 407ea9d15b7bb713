"""Evaluation of the part `vae`: likelihood bounds, reconstruction errors, and scores of generated images."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from lessons.lesson_00_foundations.vae.experiment.classifier import DigitClassifier, score_images, train_classifier
from lessons.lesson_00_foundations.vae.experiment.data import TRIALS, Images, load_images
from lessons.lesson_00_foundations.vae.experiment.pca import GaussianInPCA
from lessons.lesson_00_foundations.vae.model import VariationalAutoencoder, binomial_log_likelihood
from shared.course.context import RunContext

SAMPLES = 4000
"""Number of generated images that the classifier scores, per model."""
IMPORTANCE_SAMPLES = 200


def evaluate_model(
    model: VariationalAutoencoder | GaussianInPCA, images: Images, classifier: DigitClassifier, seed: int
) -> dict[str, float]:
    """Measure the bound and the reconstruction error on held-out digits, and score generated images.

    Names with the prefix "noisy_" belong to samples with pixel noise, the others to expected images. `nearest` is the
    samples' distance to the nearest training digit, relative to held-out digits; it is near 0 for copies.
    """
    generator = Generator().manual_seed(seed)
    expected = model.sample(SAMPLES, generator)
    noisy = model.sample(SAMPLES, generator, pixel_noise=True)
    noisy_scores = score_images(classifier, noisy, images.test)
    return {
        **score_images(classifier, expected, images.test),
        **{f"noisy_{name}": value for name, value in noisy_scores.items()},
        "log_likelihood": model.log_likelihood(images.test, IMPORTANCE_SAMPLES, generator).mean().item(),
        "error": mean_squared_error(model.reconstruct(images.test), images.test),
        "nearest": nearest_distance(noisy, images.train) / nearest_distance(images.test, images.train),
    }


def evaluate_midpoints(
    model: VariationalAutoencoder, images: Images, classifier: DigitClassifier, seed: int, pairs: int = 1000
) -> dict[str, float]:
    """Measure the classifier's confidence halfway between two held-out digits of different classes.

    One midpoint is decoded from between their codes; the other is the mean of their reconstructions. In a linear model
    both are the same image.
    """
    rows = torch.randint(len(images.test), (2, 2 * pairs), generator=Generator().manual_seed(seed))
    rows = rows[:, images.test_labels[rows[0]] != images.test_labels[rows[1]]][:, :pairs]
    codes, _ = model.encode(images.test)
    code_midpoints = model.expected_image(codes[rows].mean(dim=0))
    pixel_midpoints = model.expected_image(codes)[rows].mean(dim=0)
    return {
        "code_midpoint_confidence": score_images(classifier, code_midpoints, images.test)["confidence"],
        "pixel_midpoint_confidence": score_images(classifier, pixel_midpoints, images.test)["confidence"],
    }


def nearest_distance(images: Tensor, others: Tensor) -> float:
    """Return the median distance from an image to the nearest of the others."""
    return torch.cdist(images, others).amin(dim=1).median().item()


def mean_squared_error(images: Tensor, others: Tensor) -> float:
    """Return the mean squared difference per pixel, in squared ink points (a pixel has 16 points)."""
    return F.mse_loss(images, others).item()


def evaluate_baselines(context: RunContext, *, classifier_steps: int) -> dict:
    """Measure real digits, the mean digit, and independent pixels: models without a code.

    Independent pixels have a table of the probabilities of 17 counts for each pixel.
    """
    images = load_images(context.seed)
    classifier = train_classifier(context, images, classifier_steps)
    mean = images.train.mean(dim=0)
    # Smoothing: one point of ink and one of paper for the mean, a tenth of a digit per count for the tables. So no
    # count has probability 0.
    probability = (mean * len(images.train) + 1) / (TRIALS * len(images.train) + 2)
    tables = F.one_hot(images.train.long(), TRIALS + 1).sum(dim=0) + 0.1
    tables = tables / tables.sum(dim=1, keepdim=True)
    generator = Generator().manual_seed(context.seed)
    independent = torch.multinomial(tables, SAMPLES, replacement=True, generator=generator).T.float()
    scores = {
        f"{name}_{score}": value
        for name, samples in (("real", images.train), ("independent", independent))
        for score, value in score_images(classifier, samples, images.test).items()
    }
    mean_likelihoods = binomial_log_likelihood(probability.logit().expand_as(images.test), images.test, TRIALS)
    table_likelihoods = tables.log().gather(1, images.test.long().T).sum(dim=0)
    return scores | {
        "classifier_accuracy": (classifier(images.test).argmax(dim=1) == images.test_labels).double().mean().item(),
        "mean_digit_error": mean_squared_error(mean.expand_as(images.test), images.test),
        "mean_digit_log_likelihood": mean_likelihoods.mean().item(),
        "independent_log_likelihood": table_likelihoods.mean().item(),
    }
