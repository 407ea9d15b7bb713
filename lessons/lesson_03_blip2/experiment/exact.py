"""What must hold to rounding, before anything is trained: the pure-Python first stage against the PyTorch one."""

from pathlib import Path
from random import Random

import torch

from lessons.lesson_03_blip2 import reference
from lessons.lesson_03_blip2.model import FirstStage, QFormerConfig, Retriever, RetrieverConfig, visible
from lessons.lesson_03_blip2.model.losses import similarities
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch


def check_mechanism(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict[str, float]:
    """Largest absolute differences between things that the lesson says are the same (only seed is used)."""
    torch.manual_seed(seed)
    plain, model, features = both(seed)
    texts = [reference.spelled(name) for name in reference.NAMES[:4]]
    tokens = torch.tensor(reference.padded(texts))
    segments = torch.tensor([[0] * len(text) + [-1] * (reference.TEXT - len(text)) for text in texts])
    here, there = plain.contrast(to_stdlib(features), texts), contrast(model, features, tokens, segments)
    written = plain.write(to_stdlib(features), texts), model.write(features, tokens, segments)
    masks = [
        (to_torch(reference.task_mask(task, 4, list(map(len, texts)), reference.TEXT))[:, 0] == 0)
        != visible(task, 4, segments)
        for task in ("contrastive", "matching", "generation")
    ]
    return {
        "contrast_difference": max_abs_difference(to_torch(here), there),
        "writing_difference": (to_torch(written[0]) - written[1])[segments >= 0].abs().max().item(),
        "mask_difference": float(sum(mask.sum().item() for mask in masks)),
    }


def both(seed: int) -> tuple[reference.FirstStage, FirstStage, torch.Tensor]:
    """The same random weights in both, and features to look at."""
    sizes = (
        reference.QUERIES,
        reference.WIDTH,
        reference.DEPTH,
        reference.HEADS,
        reference.HIDDEN_WIDTH,
        22,
        reference.SHARED,
    )
    queries, width, depth, heads, mlp_dim, context, shared = sizes
    qformer = QFormerConfig(width, depth, heads, mlp_dim, context, reads_text=True)
    config = RetrieverConfig(qformer, queries, reference.VOCABULARY, reference.TEXT, shared)
    model = FirstStage(Retriever(config, torch.nn.Identity()), reference.WRITE).double()
    plain = reference.FirstStage(reference.Retriever(*sizes, Random(seed)), Random(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model, torch.randn(4, 9, context, dtype=torch.float64)


@torch.no_grad()
def contrast(model: FirstStage, features: torch.Tensor, tokens: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Similarities over the temperature, images and texts each by themselves."""
    retriever = model.retriever
    return (
        similarities(retriever.image_vectors(features), retriever.text_vectors(tokens, segments))
        / model.log_temperature.exp()
    )
