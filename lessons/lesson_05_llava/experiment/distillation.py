"""A small decoder learns from lesson 0's: not only which word came, but all that the large one would have said."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data.toybox import documents as text
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits, encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, load_language_model, toy_decoder
from shared.finetuning import distillation_loss, sft_loss
from shared.training import Batches, Evaluation, RunOptions, TrainingConfig, curve_from_history, train

HELD_OUT_DOCUMENTS = 200


def student_loss(
    student: LanguageModel,
    batch: tuple[Tensor, Tensor],
    teacher: LanguageModel | None,
    weight: float,
    temperature: float,
) -> Tensor:
    """(1 − weight) · surprise at what came + weight · distance from what the teacher expects; without a teacher the first alone."""
    tokens, segments = batch
    inside = torch.nn.functional.pad(has_previous_token(segments), (1, 0))
    logits = student(tokens, segments=segments)
    alone = sft_loss(logits, tokens, inside)
    if teacher is None:
        return alone
    with torch.no_grad():
        expected = teacher(tokens, segments=segments)
    return (1 - weight) * alone + weight * distillation_loss(logits, expected, inside, temperature)


def distil(
    *,
    seed: int,
    data: str,
    device: str,
    folder: Path,
    resume: bool,
    steps: int,
    taught: bool,
    weight: float = 0.9,
    temperature: float = 1.0,
    documents: int = 150,
    batch_size: int = 16,
    learning_rate: float = 8e-3,
    width: int = 32,
    depth: int = 2,
) -> dict:
    """Train a small decoder on the toy world's text, alone or `taught` by lesson 0's; measure both on new text.

    documents   to learn from, again and again; the teacher has read many more
    (data is not used: the teacher knows the toy world)
    """
    teacher, tokenizer = load_language_model()
    teacher = teacher.to(device)
    rows, segments = pack_documents(
        encode_documents(tokenizer, text.documents("train", seed, documents)), CONTEXT_LENGTH
    )
    held_out = text.documents("validation", seed, HELD_OUT_DOCUMENTS)
    test, size = encode_documents(tokenizer, held_out), sum(len(document.encode()) for document in held_out)
    torch.manual_seed(seed)
    student = toy_decoder(tokenizer.vocab_size, width=width, depth=depth, heads=2, kv_heads=1, mlp_dim=2 * width)
    result = train(
        student,
        Batches(rows, segments, batch_size=batch_size, seed=seed),
        partial(student_loss, teacher=teacher if taught else None, weight=weight, temperature=temperature),
        TrainingConfig(
            steps=steps,
            learning_rate=learning_rate,
            optimizer="muon",
            betas=(0.9, 0.95),
            warmup_steps=steps // 10,
            seed=seed,
            log_every=max(1, steps // 20),
        ),
        run=RunOptions(folder=folder, resume=resume, device=device, label=folder.name),
        evaluation=Evaluation(
            lambda model: {"bits_per_byte": cross_entropy_bits(model, test) / size}, every=max(1, steps // 5)
        ),
    )
    return {
        "bits_per_byte": cross_entropy_bits(student, test) / size,
        "teacher_bits_per_byte": cross_entropy_bits(teacher, test) / size,
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "teacher_parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "bits_per_byte_curve": curve_from_history(result.history, "evaluation/bits_per_byte"),
    }
