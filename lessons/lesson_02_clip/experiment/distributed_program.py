"""Compute both losses and all gradients of a batch, in one process or split over several; started by exact.py.

torchrun --standalone --nproc-per-node 2 lessons/lesson_02_clip/experiment/distributed_program.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from lessons.lesson_02_clip.model import (
    CLIP,
    CLIPConfig,
    SigLIP,
    SigLIPConfig,
    TextEncoderConfig,
    clip_vision_config,
)
from shared.distributed import all_reduce_mean, is_main, join, rank, world_size

FILE_NAME = "losses_and_gradients.json"
IMAGE = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}
TEXT = {"vocab_size": 20, "context_length": 6, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}
SIGLIP_IMAGE = {"class_token": False, "pooling": "attention", "patch_bias": True, "pre_norm": False}


def small_clip_and_batch(batch: int) -> tuple[CLIP, Tensor, Tensor]:
    """Return a small CLIP and random images and captions, the same in every process."""
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(clip_vision_config(**IMAGE), TextEncoderConfig(**TEXT), embedding=8)).double()
    return model, torch.randn(batch, 3, 8, 8, dtype=torch.float64), torch.randint(0, 20, (batch, 6))


def losses_and_gradients(batch: int = 12) -> dict[str, list[float]]:
    """Return the loss of the whole batch and its gradients for CLIP and SigLIP; each process encodes its own rows."""
    clip, images, token_ids = small_clip_and_batch(batch)
    text = TextEncoderConfig(**TEXT, causal=False, pooling="last")
    siglip = SigLIP(SigLIPConfig(clip_vision_config(**IMAGE | SIGLIP_IMAGE), text)).double()
    rows = slice(rank() * batch // world_size(), (rank() + 1) * batch // world_size())
    values = {}
    for name, model in (("info-nce", clip), ("sigmoid", siglip)):
        loss = model.loss(model.encode_images(images[rows]), model.encode_texts(token_ids[rows]))
        loss.backward()
        # Data-parallel training averages gradients in the same way.
        gradients = [all_reduce_mean(parameter.grad).flatten() for parameter in model.parameters()]
        values[name] = torch.cat([all_reduce_mean(loss.detach())[None], *gradients]).tolist()
    return values


if __name__ == "__main__":
    torch.set_num_threads(1)
    join()
    results = losses_and_gradients()
    if is_main():
        (Path(sys.argv[1]) / FILE_NAME).write_text(json.dumps(results))
