"""The exercises. Each is reached through `student` alone: numbers in, numbers out. A mistake breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(given, expected, tolerance=1e-5):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


# ── 3.1 and 3.4: one score from many queries ──────────────────────────────────────────────────────────────────────────

SIMILARITIES = [
    pytest.param("reference:similarities", marks=pytest.mark.exercise("3.1")),
    pytest.param("model.losses:similarities", marks=pytest.mark.exercise("3.4")),
]


@pytest.mark.parametrize("where", SIMILARITIES)
def test_the_best_query_speaks_for_the_image(student, where):
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, -0.8]], [[0.0, -1.0], [-0.8, -0.6]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    close(student(where, images=images, texts=texts), torch.tensor([[1.0, 1.0], [0.6, 0.0], [0.0, -0.6]]))


@pytest.mark.parametrize("where", SIMILARITIES)
def test_rows_are_images_and_columns_texts(student, where):
    images, texts = torch.randn(3, 4, 5), torch.randn(2, 5)
    scores = student(where, images=images, texts=texts)
    assert scores.shape == (3, 2)
    for image in range(3):
        for text in range(2):
            close(scores[image, text], max(images[image, query] @ texts[text] for query in range(4)), 1e-4)


@pytest.mark.parametrize("where", SIMILARITIES)
def test_only_the_best_query_learns_from_a_score(student, where):
    images, texts, upstream = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 2)
    _, gradients = student(where, upstream=upstream, images=images, texts=texts)
    best = (images @ texts.T).argmax(dim=1)  # [images, texts]
    expected = torch.zeros_like(images)
    for image in range(2):
        for text in range(2):
            expected[image, best[image, text]] += upstream[image, text] * texts[text]
    close(gradients["images"], expected, 1e-4)
    assert gradients["texts"].abs().max() > 0.01


# ── 3.2 and 3.3: three masks ──────────────────────────────────────────────────────────────────────────────────────────

LENGTHS = [3, 1, 4]
TEXT = 4


def seen_by_reference(student, task, queries):
    return student("reference:task_mask", task=task, queries=queries, lengths=LENGTHS, text=TEXT)[:, 0] == 0


def seen_by_model(student, task, queries):
    segments = torch.where(torch.arange(TEXT) < torch.tensor(LENGTHS)[:, None], 0, -1)
    return student("model.masks:visible", task=task, queries=queries, segments=segments)


MASKS = [
    pytest.param(seen_by_reference, marks=pytest.mark.exercise("3.2")),
    pytest.param(seen_by_model, marks=pytest.mark.exercise("3.3")),
]


@pytest.mark.parametrize("seen_by", MASKS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_who_sees_whom(student, seen_by, queries, task):
    seen = seen_by(student, task, queries)
    assert seen.shape == (len(LENGTHS), queries + TEXT, queries + TEXT)
    for row, length in enumerate(LENGTHS):
        for i in range(queries + length):
            for j in range(queries + length):
                expected = {
                    "contrastive": (i < queries) == (j < queries),
                    "matching": True,
                    "generation": j < queries or (i >= queries and j <= i),
                }[task]
                assert seen[row, i, j] == expected, (row, i, j)


@pytest.mark.parametrize("seen_by", MASKS)
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_padding_is_seen_by_nobody(student, seen_by, task):
    seen = seen_by(student, task, 2)
    for row, length in enumerate(LENGTHS):
        assert not seen[row, : 2 + length, 2 + length :].any()


@pytest.mark.exercise("3.2")
def test_what_is_hidden_has_no_weight_at_all(student):
    mask = student("reference:task_mask", task="generation", queries=2, lengths=LENGTHS, text=TEXT)
    assert set(mask.unique().tolist()) == {0.0, -math.inf}
    assert mask.shape == (3, 1, 6, 6)  # one for all heads


# ── 3.5: hard negatives ───────────────────────────────────────────────────────────────────────────────────────────────

NEGATIVES = "model.losses:negative_chances"


@pytest.mark.exercise("3.5")
def test_the_chances_are_those_of_softmax_without_the_partner(student):
    scores = torch.tensor([[0.3, 1.0, 0.0], [2.0, -1.0, 1.0], [0.0, 0.0, 5.0]])
    chances = student(NEGATIVES, scores=scores)
    for row, (better, worse) in enumerate([(1, 2), (0, 2), (0, 1)]):
        odds = math.exp(scores[row, better] - scores[row, worse])
        assert chances[row, better] == pytest.approx(odds / (1 + odds), abs=1e-3)
        assert chances[row, worse] == pytest.approx(1 / (1 + odds), abs=1e-3)
        assert chances[row, row] == 0


@pytest.mark.exercise("3.5")
def test_somebody_can_always_be_drawn_and_never_the_partner(student):
    scores = torch.full((4, 4), -300.0).fill_diagonal_(300.0)
    chances = student(NEGATIVES, scores=scores)
    close(chances.sum(1), torch.ones(4))
    close(chances, (1 - torch.eye(4)) / 3)
    drawn = torch.multinomial(chances, 50, replacement=True)
    assert not (drawn == torch.arange(4)[:, None]).any()


@pytest.mark.exercise("3.5")
def test_a_better_fit_of_the_pair_itself_changes_no_odds(student):
    scores = torch.randn(4, 4)
    surer = scores + 2.0 * torch.eye(4)
    close(student(NEGATIVES, scores=scores), student(NEGATIVES, scores=surer), 1e-4)


@pytest.mark.exercise("3.5")
def test_nothing_is_learned_through_the_choice(student):
    _, gradients = student(NEGATIVES, upstream=torch.randn(4, 4), scores=torch.randn(4, 4))
    assert (gradients["scores"] == 0).all()


# ── 3.6: the surprise at the words ────────────────────────────────────────────────────────────────────────────────────

WRITING = "model.losses:writing_loss"


def writing_arguments():
    return {
        "logits": torch.randn(3, 5, 7),
        "tokens": torch.randint(0, 7, (3, 5)),
        "segments": torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, -1, -1], [0, 0, -1, -1, -1]]),
    }


@pytest.mark.exercise("3.6")
def test_the_loss_is_the_mean_surprise_at_each_next_word(student):
    arguments = writing_arguments()
    chances = arguments["logits"].double().log_softmax(-1)
    surprises = [
        -chances[row, place - 1, arguments["tokens"][row, place]]
        for row, length in enumerate((5, 3, 2))
        for place in range(1, length)
    ]
    assert student(WRITING, **arguments).item() == pytest.approx(sum(surprises).item() / 7, rel=1e-5)


@pytest.mark.exercise("3.6")
def test_every_word_of_the_batch_pulls_alike_and_padding_not_at_all(student):
    arguments = writing_arguments()
    _, gradients = student(WRITING, upstream=torch.tensor(1.0), **arguments)
    expected = torch.zeros(3, 5, 7)
    for row, length in enumerate((5, 3, 2)):
        for place in range(length - 1):
            truth = F.one_hot(arguments["tokens"][row, place + 1], 7)
            expected[row, place] = (arguments["logits"][row, place].softmax(-1) - truth) / 7
    close(gradients["logits"], expected)
