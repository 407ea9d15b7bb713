"""What must hold to rounding, before anything is trained: the pure-Python LLaVA against the PyTorch one, and what the mask hides."""

from pathlib import Path
from random import Random

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava import reference
from lessons.lesson_05_llava.model import Llava, Projector, loss_mask
from shared.finetuning import sft_loss
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

FEATURES, WIDTH, LAYERS, HEADS, HIDDEN = 20, 24, 2, 2, 48


def check_mechanism(*, seed: int, data: str, device: str, folder: Path, resume: bool) -> dict[str, float]:
    """Largest absolute differences between things that the lesson says are the same (only seed is used)."""
    torch.manual_seed(seed)
    plain, model = both(seed)
    features = torch.randn(3, reference.PATCHES, FEATURES, dtype=torch.float64)
    rows = conversations()
    tokens = torch.tensor(rows)
    own = torch.tensor([reference.learned(row) for row in rows])
    wanted = loss_mask(tokens, own, torch.zeros_like(tokens), image_token_id=reference.IMAGE)
    here, there = plain(rows, to_stdlib(features)), model.logits(tokens, features)
    losses = reference.sft_loss(here, rows).item(), sft_loss(there, tokens, wanted).item()
    return {
        "logit_difference": max_abs_difference(to_torch(here), there),
        "loss_difference": abs(losses[0] - losses[1]),
        "prompt_gradient": prompt_gradient(there, tokens, wanted),
    }


def both(seed: int) -> tuple[reference.Llava, Llava]:
    """The same random weights in both."""
    config = DecoderConfig(len(reference.WORDS), WIDTH, LAYERS, HEADS, HEADS, HIDDEN, rotary_base=10_000.0)
    language = LanguageModel(config)
    model = Llava(torch.nn.Identity(), Projector(FEATURES, WIDTH), language, image_token_id=reference.IMAGE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    random = Random(seed)
    speaks = reference.LanguageModel(WIDTH, LAYERS, HEADS, HIDDEN, random)
    plain = reference.Llava(reference.Projector(FEATURES, WIDTH, random), speaks)
    plain.load_parameters({name: parameter.flatten().tolist() for name, parameter in model.named_parameters()})
    return plain, model


def conversations() -> list[list[int]]:
    """Three of equal lengths, about an image each."""
    said = [[(question, reference.answer_to(question, digit)) for question in ("even", "next")] for digit in (3, 8, 0)]
    return [reference.expanded(reference.conversation("<image>", turns), reference.PATCHES) for turns in said]


def prompt_gradient(logits: Tensor, tokens: Tensor, wanted: Tensor) -> float:
    """The largest gradient of the loss by a logit that speaks of a question, a header or an image: none may be there."""
    (gradient,) = torch.autograd.grad(sft_loss(logits, tokens, wanted), logits)
    asked = torch.cat([wanted[:, 1:], torch.zeros_like(wanted[:, :1])], dim=1)
    return gradient[~asked].abs().max().item()
