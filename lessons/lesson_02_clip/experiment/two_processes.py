"""A batch of pairs, whole in one process or spread over several: the program that `exact.py` starts twice.

python -m torch.distributed.run --standalone --nproc-per-node 2 lessons/lesson_02_clip/experiment/two_processes.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from lessons.lesson_02_clip.model import CLIP, CLIPConfig, SigLIP, SigLIPConfig, TextEncoderConfig, clip_vision_config
from shared.distributed import all_reduce_mean, is_main, join, rank, world_size

FILE_NAME = "losses_and_gradients.json"
IMAGE = {"image_size": 8, "patch_size": 4, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}
TEXT = {"vocab_size": 20, "context_length": 6, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 24}
EYE_OF_SIGLIP = {"class_token": False, "pooling": "attention", "patch_bias": True, "pre_norm": False}


def small_pair(batch: int) -> tuple[CLIP, Tensor, Tensor]:
    """A small CLIP, and as many random pictures and captions; the same in every process."""
    torch.manual_seed(0)
    model = CLIP(CLIPConfig(clip_vision_config(**IMAGE), TextEncoderConfig(**TEXT), embedding=8)).double()
    return model, torch.randn(batch, 3, 8, 8, dtype=torch.float64), torch.randint(0, 20, (batch, 6))


def losses_and_gradients(batch: int = 12) -> dict[str, list[float]]:
    """For both models the loss of the whole batch, and its gradient by every weight, each process taking its rows."""
    clip, images, tokens = small_pair(batch)
    text = TextEncoderConfig(**TEXT, causal=False, pooling="last")
    siglip = SigLIP(SigLIPConfig(clip_vision_config(**IMAGE | EYE_OF_SIGLIP), text)).double()
    rows = slice(rank() * batch // world_size(), (rank() + 1) * batch // world_size())
    found = {}
    for name, model in (("info-nce", clip), ("sigmoid", siglip)):
        loss = model.loss(model.encode_images(images[rows]), model.encode_texts(tokens[rows]))
        loss.backward()
        # What data-parallel training does with the weights' gradients.
        gradients = [all_reduce_mean(parameter.grad).flatten() for parameter in model.parameters()]
        found[name] = torch.cat([all_reduce_mean(loss.detach())[None], *gradients]).tolist()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    join()
    results = losses_and_gradients()
    if is_main():
        (Path(sys.argv[1]) / FILE_NAME).write_text(json.dumps(results))
