"""The distillation arm: a small decoder learns the token probabilities of lesson 0's decoder (arXiv:1503.02531)."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from data.toybox import documents as text
from data.toybox.heldout import TEST_SEED
from lessons.lesson_00_foundations.decoder.model import LanguageModel, has_previous_token, pack_documents
from lessons.lesson_00_foundations.decoder.model.evaluation import cross_entropy_bits, encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, load_language_model, toy_decoder
from shared.course.context import RunContext
from shared.finetuning import distillation_loss, sft_loss
from shared.tokenizers import Tokenizer
from shared.training import Batches, Evaluation, LossSum, RunOptions, curve_from_history, muon_config, train

HELD_OUT_DOCUMENTS = 200


def student_loss(
    student: LanguageModel,
    batch: tuple[Tensor, Tensor],
    teacher: LanguageModel | None,
    weight: float,
    temperature: float,
) -> LossSum:
    """Return (1 − weight) · cross-entropy of the text + weight · distillation loss.

    Without a teacher it is the first term alone.
    """
    token_ids, segments = batch
    inside = torch.nn.functional.pad(has_previous_token(segments), (1, 0))
    logits = student(token_ids, segments=segments)
    text_loss = sft_loss(logits, token_ids, inside)
    if teacher is None:
        return text_loss
    with torch.no_grad():
        teacher_logits = teacher(token_ids, segments=segments)
    distilled = LossSum.of_mean(distillation_loss(logits, teacher_logits, inside, temperature), text_loss.terms)
    return LossSum((1 - weight) * text_loss.total + weight * distilled.total, text_loss.terms)


@dataclass(frozen=True)
class Recipe:
    """The student's training recipe and size.

    weight       of the distillation loss; the cross-entropy of the text has 1 − weight
    temperature  of both softmaxes in the distillation loss
    documents    training documents, repeated; the teacher was trained on many more
    """

    weight: float = 0.9
    temperature: float = 1.0
    documents: int = 150
    batch_size: int = 16
    learning_rate: float = 8e-3
    width: int = 32
    depth: int = 2


class HeldOut(NamedTuple):
    """Hold new documents as token ids, and their size in bytes."""

    token_ids: list[list[int]]
    bytes: int

    @classmethod
    def sample(cls, tokenizer: Tokenizer, seed: int) -> "HeldOut":
        """Encode new documents of a seed."""
        texts = text.documents("validation", seed, HELD_OUT_DOCUMENTS)
        return cls(encode_documents(tokenizer, texts), sum(len(document.encode()) for document in texts))

    def bits_per_byte(self, model: LanguageModel) -> float:
        """Return the cross-entropy of the documents in bits per byte."""
        return cross_entropy_bits(model, self.token_ids) / self.bytes


def distill(context: RunContext, *, steps: int, with_teacher: bool, **recipe_values) -> dict:
    """Train a small decoder on toy-world text, with or without the teacher; measure both on new text.

    recipe_values  fields of `Recipe`

    The context's data set is ignored: the teacher was trained on the toy world.
    """
    recipe = Recipe(**recipe_values)
    seed, device = context.seed, context.device
    teacher, tokenizer = load_language_model()
    teacher = teacher.to(device)
    rows, segments = pack_documents(
        encode_documents(tokenizer, text.documents("train", seed, recipe.documents)), CONTEXT_LENGTH
    )
    # Curves are of the seed's validation documents, the results of test documents: the same kind, from another seed.
    validation, test = (HeldOut.sample(tokenizer, held_out_seed) for held_out_seed in (seed, TEST_SEED + seed))
    torch.manual_seed(seed)
    student = toy_decoder(
        tokenizer.vocab_size, width=recipe.width, depth=recipe.depth, heads=2, kv_heads=1, mlp_dim=2 * recipe.width
    )
    result = train(
        student,
        Batches(rows, segments, batch_size=recipe.batch_size, seed=seed),
        partial(
            student_loss,
            teacher=teacher if with_teacher else None,
            weight=recipe.weight,
            temperature=recipe.temperature,
        ),
        muon_config(steps, recipe.learning_rate, seed=seed, log_lines=20),
        run=RunOptions(folder=context.folder, resume=context.resume, device=device, label=context.folder.name),
        evaluation=Evaluation(
            lambda model: {"bits_per_byte": validation.bits_per_byte(model)}, every=max(1, steps // 5)
        ),
    )
    return {
        "bits_per_byte": test.bits_per_byte(student),
        "teacher_bits_per_byte": test.bits_per_byte(teacher),
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "teacher_parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "bits_per_byte_curve": curve_from_history(result.history, "evaluation/bits_per_byte"),
    }
