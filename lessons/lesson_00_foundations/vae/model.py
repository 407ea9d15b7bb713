"""A variational autoencoder in PyTorch (Kingma & Welling, arXiv:1312.6114) for images whose pixels are counts.

A pixel of the digits is a count: the number of ink points in a block of 16 points of the scan. The decoder outputs for
each pixel the probability that a point is ink, and the likelihood is binomial. So log p(x) is a log-probability of the
integers in the data file, in nats, and comparable between all models of these counts.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

Images = Float[Tensor, "batch pixels"]
Codes = Float[Tensor, "batch width"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of a variational autoencoder.

    pixels   per image, flattened
    width    dimension of the code
    mlp_dim  widths of the encoder's hidden layers (the decoder's in reverse); empty makes both linear
    trials   pixels are counts from 0 to this number

    Raises ValueError when one of them is less than 1.
    """

    pixels: int = 64
    width: int = 8
    mlp_dim: tuple[int, ...] = (256, 256)
    trials: int = 16

    def __post_init__(self):
        if min(self.pixels, self.width, self.trials, *self.mlp_dim) < 1:
            raise ValueError(f"{self}: expected every size to be at least 1; for a linear model leave mlp_dim empty")


# ── The two terms of the bound ────────────────────────────────────────────────────────────────────────────────────────


def reparameterize(
    mean: Codes, log_variance: Codes, noise: Float[Tensor, "*samples batch width"]
) -> Float[Tensor, "*samples batch width"]:
    """Sample from N(mean, e^log_variance) by scaling standard normal noise; gradients reach both (section 2.4)."""
    # exp(log σ² / 2) is the standard deviation σ.
    return mean + (0.5 * log_variance).exp() * noise


def kl_divergence(mean: Codes, log_variance: Codes) -> Float[Tensor, " batch"]:
    """Return KL(N(mean, e^log_variance) ‖ N(0, 1)) of each image's code, in nats (appendix B)."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(dim=-1)


def binomial_log_likelihood(
    logits: Float[Tensor, "*samples pixels"], counts: Float[Tensor, "*samples pixels"], trials: int
) -> Float[Tensor, "*samples"]:
    """Return the binomial log-likelihood of `counts` out of `trials` with p = sigmoid(logits), in nats.

    It is summed over pixels and contains the binomial coefficient, so that the probabilities of all counts sum to 1.
    """
    # exercise 0.32: the likelihood of counts
    # k · log p + (n − k) · log(1 − p), with log p = l − softplus(l) and log(1 − p) = −softplus(l) at any logit l.
    log_coefficient = math.lgamma(trials + 1) - torch.lgamma(counts + 1) - torch.lgamma(trials - counts + 1)
    return (log_coefficient + counts * logits - trials * nn.functional.softplus(logits)).sum(dim=-1)
    # end exercise


def importance_weighted_bound(
    log_likelihoods: Float[Tensor, "samples batch"],
    codes: Float[Tensor, "samples batch width"],
    mean: Codes,
    log_variance: Codes,
) -> Float[Tensor, " batch"]:
    """Return the log of the mean of p(x | z) p(z) / q(z | x) over codes z sampled from q, in nats.

    Its expectation is a lower bound of log p(x) that tightens with more samples; with one sample it is the ELBO
    (arXiv:1509.00519, section 3).
    """
    # exercise 0.33: a tighter bound
    log_prior = -0.5 * (codes**2 + math.log(2 * math.pi)).sum(dim=-1)
    log_posterior = -0.5 * ((codes - mean) ** 2 / log_variance.exp() + log_variance + math.log(2 * math.pi)).sum(dim=-1)
    log_weights = log_likelihoods + log_prior - log_posterior
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))
    # end exercise


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class VariationalAutoencoder(nn.Module):
    """Encode images to Gaussians over codes, and decode codes to the probability of ink per pixel; prior N(0, 1)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        encoder_widths = (config.pixels, *config.mlp_dim)
        decoder_widths = (config.width, *reversed(config.mlp_dim))
        self.config = config
        self.encoder = nn.ModuleList(map(nn.Linear, encoder_widths, encoder_widths[1:]))
        self.mean = nn.Linear(encoder_widths[-1], config.width)
        self.log_variance = nn.Linear(encoder_widths[-1], config.width)
        self.decoder = nn.ModuleList(map(nn.Linear, decoder_widths, decoder_widths[1:]))
        self.logits = nn.Linear(decoder_widths[-1], config.pixels)

    def encode(self, images: Images) -> tuple[Codes, Codes]:
        """Return mean and log-variance of each image's code; images hold counts from 0 to `trials`."""
        if images.shape[-1] != self.config.pixels:
            raise ValueError(
                f"images have {images.shape[-1]} pixels; expected {self.config.pixels}; flatten them first"
            )
        x = images / self.config.trials
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        return self.mean(x), self.log_variance(x)

    def decode(self, codes: Float[Tensor, "*samples width"]) -> Float[Tensor, "*samples pixels"]:
        """Return the logit of the probability of ink for each pixel."""
        for layer in self.decoder:
            codes = torch.tanh(layer(codes))
        return self.logits(codes)

    def elbo(self, images: Images, noise: Codes) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return both terms of the ELBO per image, in nats: the log-likelihood given one sampled code, and the KL."""
        mean, log_variance = self.encode(images)
        logits = self.decode(reparameterize(mean, log_variance, noise))
        return binomial_log_likelihood(logits, images, self.config.trials), kl_divergence(mean, log_variance)

    def expected_image(self, codes: Float[Tensor, "*samples width"]) -> Float[Tensor, "*samples pixels"]:
        """Return the decoder's expected counts: probability of ink times `trials`."""
        return self.decode(codes).sigmoid() * self.config.trials

    def reconstruct(self, images: Images) -> Images:
        """Return the expected image at the mean of each image's code."""
        return self.expected_image(self.encode(images)[0])

    def sample(self, count: int, generator: Generator, *, pixel_noise: bool = False) -> Images:
        """Return new images, decoded from codes of the prior: expected counts, or sampled ones with `pixel_noise`."""
        expected = self.expected_image(torch.randn(count, self.config.width, generator=generator))
        if not pixel_noise:
            return expected
        trials = torch.full_like(expected, self.config.trials)
        return torch.binomial(trials, expected / self.config.trials, generator=generator)

    def log_likelihood(self, images: Images, samples: int, generator: Generator) -> Float[Tensor, " batch"]:
        """Return the importance-weighted bound on log p(x) of each image, in nats."""
        mean, log_variance = self.encode(images)
        noise = torch.randn(samples, *mean.shape, generator=generator)
        codes = reparameterize(mean, log_variance, noise)
        likelihoods = binomial_log_likelihood(self.decode(codes), images.expand(samples, -1, -1), self.config.trials)
        return importance_weighted_bound(likelihoods, codes, mean, log_variance)


def negative_elbo(model: VariationalAutoencoder, images: Images, noise: Codes, kl_weight: float = 1.0) -> Tensor:
    """Return the loss: the negative ELBO per image in nats, averaged over the batch.

    `kl_weight` is β of the β-VAE; 0 removes the KL term.
    """
    log_likelihood, kl = model.elbo(images, noise)
    return (kl_weight * kl - log_likelihood).mean()
