"""The curriculum of the shipped decoder: its batches, its loss, and the accuracy of answers."""

import pytest
import torch
from torch.nn import functional as F

from data.toybox.documents import INTERVIEW_MIXTURE, documents
from data.toybox.heldout import mentions_held_out
from data.toybox.questions import QUESTION_TYPES
from lessons.lesson_00_foundations.decoder.experiment import answers
from lessons.lesson_00_foundations.decoder.experiment.curriculum import (
    CurriculumBatch,
    CurriculumBatches,
    curriculum,
    curriculum_loss,
)
from lessons.lesson_00_foundations.decoder.experiment.data import train_tokenizer
from lessons.lesson_00_foundations.decoder.model.toy_decoder import toy_decoder


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(documents("train", 0, 600, mixture=INTERVIEW_MIXTURE))


@pytest.fixture(scope="module")
def batches(tokenizer):
    return CurriculumBatches(curriculum(0.01), tokenizer, rows=6, length=160, seed=0)


def test_batches_are_pure_functions_of_the_step_and_never_repeat(batches):
    for first, again in zip(batches(3), batches(3), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(batches(3).token_ids, batches(4).token_ids)


def test_stages_follow_each_other(batches):
    lengths = [stage.steps for stage in batches.stages]
    assert batches.stage(0) is batches.stages[0] and batches.stage(lengths[0]) is batches.stages[1]
    assert batches.stage(10**6) is batches.stages[-1]
    tokens = [set(batches(step).token_ids.unique().tolist()) for step in (0, sum(lengths))]
    assert len(tokens[0]) < len(tokens[1])  # the first stage has no sizes, textures and places


def test_no_row_mentions_a_held_out_combination(batches, tokenizer):
    for step in (0, 6, 12, 40):
        batch = batches(step)
        for row, segments in zip(batch.token_ids, batch.segments, strict=True):
            assert not mentions_held_out(tokenizer.decode(row[segments >= 0].tolist()))


def test_answers_are_what_follows_a_question_mark_in_its_line(batches, tokenizer):
    batch = batches(0)
    decoded = [
        tokenizer.decode([token_id])
        for row, is_answer in zip(batch.token_ids.tolist(), batch.answers.tolist(), strict=True)
        for token_id, answers_question in zip(row, is_answer, strict=True)
        if answers_question
    ]
    assert len(decoded) > 20 and not any("?" in text or "\n" in text for text in decoded)
    assert {" red", " star"} & set(decoded)


def test_the_loss_weighs_answers_and_other_tokens_equally(batches, tokenizer):
    torch.manual_seed(0)
    model = toy_decoder(tokenizer.vocab_size, width=16, depth=1, heads=2, kv_heads=1, mlp_dim=16)
    batch = batches(0)
    loss, parts = curriculum_loss(model, batch)
    logits = model(batch.token_ids, segments=batch.segments)
    sums = {True: [0.0, 0], False: [0.0, 0]}
    for row in range(len(batch.token_ids)):
        for position in range(1, batch.token_ids.shape[1]):
            if batch.segments[row, position] == batch.segments[row, position - 1] >= 0:
                entry = sums[bool(batch.answers[row, position])]
                entry[0] += F.cross_entropy(logits[row, position - 1], batch.token_ids[row, position]).item()
                entry[1] += 1
    expected = [total / count for total, count in sums.values()]
    assert parts["answers"].item() == pytest.approx(expected[0], abs=1e-4)
    assert loss.item() == pytest.approx(sum(expected), abs=1e-4)


def test_a_loss_of_repeated_documents_falls(batches, tokenizer):
    torch.manual_seed(0)
    model = toy_decoder(tokenizer.vocab_size, width=32, depth=2, heads=2, kv_heads=1, mlp_dim=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = CurriculumBatch(*(part[:2] for part in batches(0)))
    losses = []
    for _ in range(25):
        loss, _ = curriculum_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_accuracies_count_right_answers(tokenizer, monkeypatch):
    model = toy_decoder(tokenizer.vocab_size, width=16, depth=1, heads=2, kv_heads=1, mlp_dim=16)
    accuracies = answers.answer_accuracies(model, tokenizer, count=4)
    assert {f"{name}_{split}" for name in (*QUESTION_TYPES, "answers") for split in ("seen", "unseen")} <= set(
        accuracies
    )
    assert max(accuracies.values()) < 0.5
    monkeypatch.setattr(answers, "greedy_matches", lambda _, rows: torch.ones(len(rows), 400, dtype=torch.bool))
    assert set(answers.answer_accuracies(model, tokenizer, count=4).values()) == {1.0}
