"""A variational autoencoder in PyTorch (Kingma & Welling, arXiv:1312.6114): images of counts → a bell of codes → counts.

A pixel of our digits is a count: how many of a block's 16 points of the scan were ink. So the decoder names, for each
pixel, the chance that a point is ink, and the likelihood is the binomial one: a probability of the very numbers that
stand in the file, in nats, that can be compared with any other model's.
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
    """Sizes. Counts run from 0 to `trials`; without `hidden` layers encoder and decoder are one matrix each.

    Raises ValueError when one of them is less than 1.
    """

    pixels: int = 64
    width: int = 8
    hidden: tuple[int, ...] = (256, 256)
    trials: int = 16

    def __post_init__(self):
        if min(self.pixels, self.width, self.trials, *self.hidden) < 1:
            raise ValueError(f"{self}: every size must be at least 1; for a linear model leave hidden empty")


# ── The two terms of the bound ────────────────────────────────────────────────────────────────────────────────────────


def reparameterize(
    mean: Codes, log_variance: Codes, noise: Float[Tensor, "*samples batch width"]
) -> Float[Tensor, "*samples batch width"]:
    """A draw from N(mean, e^log_variance), made of standard normal noise, so that gradients reach both (section 2.4)."""
    # The half makes a standard deviation of a variance.
    return mean + (0.5 * log_variance).exp() * noise


def kl_divergence(mean: Codes, log_variance: Codes) -> Float[Tensor, " batch"]:
    """KL(N(mean, e^log_variance) ‖ N(0, 1)) of each image's code, in nats (appendix B)."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(dim=-1)


def binomial_log_likelihood(
    logits: Float[Tensor, "*samples pixels"], counts: Float[Tensor, "*samples pixels"], trials: int
) -> Float[Tensor, "*samples"]:
    """log of the probability of `counts` out of `trials`, where sigmoid(logits) is the chance of each, summed over pixels.

    In nats, with the number of ways in which k of n points can be ink, so that over all counts the probabilities sum to 1.
    """
    # exercise 0.32: the likelihood of counts
    # log p = l − softplus(l) and log(1 − p) = −softplus(l), finite at any logit: k of the one and n − k of the other.
    ways = math.lgamma(trials + 1) - torch.lgamma(counts + 1) - torch.lgamma(trials - counts + 1)
    return (ways + counts * logits - trials * nn.functional.softplus(logits)).sum(dim=-1)
    # end exercise


def importance_weighted_bound(
    log_likelihoods: Float[Tensor, "samples batch"],
    codes: Float[Tensor, "samples batch width"],
    mean: Codes,
    log_variance: Codes,
) -> Float[Tensor, " batch"]:
    """log of the mean of p(x | z) p(z) / q(z | x) over codes z drawn from q (arXiv:1509.00519, section 3), in nats.

    On average below log p(x), and the closer the more samples; with one sample it is the ELBO.
    """
    # exercise 0.33: a tighter bound
    log_prior = -0.5 * (codes**2 + math.log(2 * math.pi)).sum(dim=-1)
    log_posterior = -0.5 * ((codes - mean) ** 2 / log_variance.exp() + log_variance + math.log(2 * math.pi)).sum(dim=-1)
    log_weights = log_likelihoods + log_prior - log_posterior
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))
    # end exercise


# ── The model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class VariationalAutoencoder(nn.Module):
    """Encoder x → N(mean, variance) of codes z; decoder z → a chance of ink for each pixel; prior N(0, 1)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        inward = (config.pixels, *config.hidden)
        outward = (config.width, *reversed(config.hidden))
        self.config = config
        self.encoder = nn.ModuleList(map(nn.Linear, inward, inward[1:]))
        self.mean = nn.Linear(inward[-1], config.width)
        self.log_variance = nn.Linear(inward[-1], config.width)
        self.decoder = nn.ModuleList(map(nn.Linear, outward, outward[1:]))
        self.logits = nn.Linear(outward[-1], config.pixels)

    def encode(self, images: Images) -> tuple[Codes, Codes]:
        """Mean and log-variance of each image's codes; images hold counts from 0 to `trials`."""
        if images.shape[-1] != self.config.pixels:
            raise ValueError(
                f"images of {images.shape[-1]} pixels were given, and {self.config.pixels} are expected; flatten them first"
            )
        x = images / self.config.trials
        for layer in self.encoder:
            x = torch.tanh(layer(x))
        return self.mean(x), self.log_variance(x)

    def decode(self, codes: Float[Tensor, "*samples width"]) -> Float[Tensor, "*samples pixels"]:
        """The logit of the chance of ink, for each pixel."""
        for layer in self.decoder:
            codes = torch.tanh(layer(codes))
        return self.logits(codes)

    def elbo(self, images: Images, noise: Codes) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Both terms of the bound for each image, in nats: log-likelihood of the image given one drawn code, and the KL."""
        mean, log_variance = self.encode(images)
        logits = self.decode(reparameterize(mean, log_variance, noise))
        return binomial_log_likelihood(logits, images, self.config.trials), kl_divergence(mean, log_variance)

    def ink(self, codes: Float[Tensor, "*samples width"]) -> Float[Tensor, "*samples pixels"]:
        """The image that the decoder expects: chance of ink times `trials`."""
        return self.decode(codes).sigmoid() * self.config.trials

    def reconstruct(self, images: Images) -> Images:
        """What the decoder expects at each image's most likely code."""
        return self.ink(self.encode(images)[0])

    def sample(self, count: int, generator: Generator, *, grain: bool = False) -> Images:
        """New images: codes from the prior, decoded. With `grain` the counts are drawn, too, and not only their mean given."""
        ink = self.ink(torch.randn(count, self.config.width, generator=generator))
        if not grain:
            return ink
        return torch.binomial(torch.full_like(ink, self.config.trials), ink / self.config.trials, generator=generator)

    def log_likelihood(self, images: Images, samples: int, generator: Generator) -> Float[Tensor, " batch"]:
        """The importance-weighted bound on log p(x) of each image, in nats."""
        mean, log_variance = self.encode(images)
        noise = torch.randn(samples, *mean.shape, generator=generator)
        codes = reparameterize(mean, log_variance, noise)
        likelihoods = binomial_log_likelihood(self.decode(codes), images.expand(samples, -1, -1), self.config.trials)
        return importance_weighted_bound(likelihoods, codes, mean, log_variance)


def negative_elbo(model: VariationalAutoencoder, images: Images, noise: Codes, kl_weight: float = 1.0) -> Tensor:
    """The loss: what an image costs, in nats, averaged over the batch. `kl_weight` is β-VAE's β; 0 leaves the KL out."""
    log_likelihood, kl = model.elbo(images, noise)
    return (kl_weight * kl - log_likelihood).mean()
