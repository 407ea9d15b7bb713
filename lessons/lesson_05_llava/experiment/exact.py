"""Identities that hold up to rounding before any training: reference against PyTorch, and the loss mask."""

from random import Random

import torch
from torch import Tensor

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_05_llava import reference
from lessons.lesson_05_llava.model import Llava, Projector, loss_mask
from shared.course.context import RunContext
from shared.finetuning import sft_loss
from shared.stdlib.decoder import Decoder
from shared.torch_conversion import max_abs_difference, to_stdlib, to_torch
from shared.transformer import DecoderConfig

FEATURES, WIDTH, DEPTH, HEADS, MLP_DIM = 20, 24, 2, 2, 48


def check_mechanism(context: RunContext) -> dict[str, float]:
    """Return the largest absolute differences between quantities that must be equal; only the seed is used."""
    torch.manual_seed(context.seed)
    reference_model, model = models_with_equal_weights(context.seed)
    features = torch.randn(3, reference.PATCHES, FEATURES, dtype=torch.float64)
    rows = example_conversations()
    token_ids = torch.tensor(rows)
    answer_mask = torch.tensor([reference.loss_mask(row) for row in rows])
    mask = loss_mask(token_ids, answer_mask, torch.zeros_like(token_ids), image_token_id=reference.IMAGE)
    reference_logits, logits = reference_model(rows, to_stdlib(features)), model.logits(token_ids, features)
    losses = reference.sft_loss(reference_logits, rows).item(), sft_loss(logits, token_ids, mask).mean().item()
    return {
        "logit_difference": max_abs_difference(to_torch(reference_logits), logits),
        "loss_difference": abs(losses[0] - losses[1]),
        "prompt_gradient": prompt_gradient(logits, token_ids, mask),
    }


def models_with_equal_weights(seed: int) -> tuple[reference.Llava, Llava]:
    """Return the reference and the PyTorch model with the same random weights."""
    config = DecoderConfig(len(reference.WORDS), WIDTH, DEPTH, HEADS, HEADS, MLP_DIM, rotary_base=10_000.0)
    projector, language_model = Projector(FEATURES, WIDTH), LanguageModel(config)
    model = Llava(torch.nn.Identity(), projector, language_model, image_token_id=reference.IMAGE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    rng = Random(seed)
    reference_language_model = Decoder(len(reference.WORDS), WIDTH, DEPTH, HEADS, MLP_DIM, rng)
    reference_model = reference.Llava(reference.Projector(FEATURES, WIDTH, rng), reference_language_model)
    weights = {name: parameter.flatten().tolist() for name, parameter in model.named_parameters()}
    reference_model.load_parameters(weights)
    return reference_model, model


def example_conversations() -> list[list[int]]:
    """Return three conversations of equal length, each about one image."""
    conversations = [
        [(question, reference.answer_to(question, digit)) for question in ("even", "next")] for digit in (3, 8, 0)
    ]
    return [
        reference.expand_images(reference.conversation("<image>", turns), reference.PATCHES) for turns in conversations
    ]


def prompt_gradient(logits: Tensor, token_ids: Tensor, mask: Tensor) -> float:
    """Return the largest gradient of the loss at a logit that predicts a token outside the loss mask."""
    (gradient,) = torch.autograd.grad(sft_loss(logits, token_ids, mask).mean(), logits)
    predicts_loss_token = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return gradient[~predicts_loss_token].abs().max().item()
