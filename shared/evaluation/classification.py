"""The accuracy of an image classifier."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """Return the fraction of images whose largest logit is the label's. The model is set to evaluation mode.

    images  [images, channels, height, width], on any device: each batch is moved to the model's
    labels  [images]
    """
    model.eval()
    device = next(model.parameters()).device
    predictions = [model(batch.to(device)).argmax(dim=1).cpu() for batch in images.split(batch_size)]
    return (torch.cat(predictions) == labels.cpu()).float().mean().item()
