"""An adversarial loss: a discriminator tells real patches from reconstructed ones (arXiv:2012.09841, section 3.1).

A tokenizer that is trained with a pixel loss returns the mean of all images that fit its codes, which is blurred. A
discriminator that is trained beside it learns to tell such patches from real ones, and its gradient makes them sharp.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Images = Float[Tensor, "batch 3 size size"]
Logits = Float[Tensor, "batch 1 rows columns"]


class PatchDiscriminator(nn.Module):
    """Return one logit per patch, high for real ones: images [batch, 3, size, size] → [batch, 1, size/8, size/8].

    Each logit depends on a patch only, not on the whole image (arXiv:1611.07004, section 3.2.2).

    width  channels after the first convolution; each further one doubles them
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, images: Images) -> Logits:
        return self.layers(4 * images - 3)


def hinge_loss(real: Float[Tensor, "*real"], generated: Float[Tensor, "*generated"]) -> Float[Tensor, ""]:
    """Return the discriminator's loss: ½ · mean max(0, 1 − real) + ½ · mean max(0, 1 + generated) (arXiv:1705.02894).

    A logit beyond its margin of 1 on the right side has no gradient.
    """
    # exercise 11.19: the hinge loss
    return 0.5 * F.relu(1 - real).mean() + 0.5 * F.relu(1 + generated).mean()
    # end exercise


def discriminator_loss(discriminator: PatchDiscriminator, real: Images, generated: Images) -> Float[Tensor, ""]:
    """Return the hinge loss; it has no gradient for what generated the images."""
    return hinge_loss(discriminator(real), discriminator(generated.detach()))


def generator_loss(discriminator: PatchDiscriminator, generated: Images) -> Float[Tensor, ""]:
    """Return −mean logit of generated images; it has no gradient for the discriminator's weights."""
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return -functional_call(discriminator, frozen, (generated,)).mean()


def adaptive_weight(
    reconstruction_gradient: Float[Tensor, "*shape"],
    adversarial_gradient: Float[Tensor, "*shape"],
    *,
    delta: float = 1e-6,
    largest: float = 1e4,
) -> Float[Tensor, ""]:
    """Return λ = ‖∇ reconstruction loss‖ / (‖∇ adversarial loss‖ + δ), at most `largest` (arXiv:2012.09841, eq. 7).

    The gradients are those of the decoder's last layer. λ times the adversarial loss then has a gradient as large as
    the reconstruction loss, however confident the discriminator is. λ is a constant: it has no gradient itself.
    """
    # exercise 11.20: the adaptive weight
    weight = reconstruction_gradient.norm() / (adversarial_gradient.norm() + delta)
    return weight.clamp(max=largest).detach()
    # end exercise


def adaptive_weight_of_losses(
    reconstruction_loss: Float[Tensor, ""], adversarial_loss: Float[Tensor, ""], last_layer: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """Return λ for two losses that depend on the weight of the decoder's last layer."""
    gradients = [
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction_loss, adversarial_loss)
    ]
    return adaptive_weight(*gradients)
