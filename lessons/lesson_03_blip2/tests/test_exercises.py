"""The exercises, each called through `student`. A mistake in an exercise fails at least one test."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 3.1 and 3.4: the maximum over queries ────────────────────────────────────────────────────────────────────────────

SIMILARITY = [
    pytest.param("reference:image_text_similarity", marks=pytest.mark.exercise("3.1")),
    pytest.param("model.losses:image_text_similarity", marks=pytest.mark.exercise("3.4")),
]


@pytest.mark.parametrize("function", SIMILARITY)
def test_similarity_is_the_maximum_over_queries(student, function):
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, -0.8]], [[0.0, -1.0], [-0.8, -0.6]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    close(
        student(function, image_embeddings=images, text_embeddings=texts),
        torch.tensor([[1.0, 1.0], [0.6, 0.0], [0.0, -0.6]]),
    )


@pytest.mark.parametrize("function", SIMILARITY)
def test_rows_are_images_and_columns_texts(student, function):
    images, texts = torch.randn(3, 4, 5), torch.randn(2, 5)
    scores = student(function, image_embeddings=images, text_embeddings=texts)
    assert scores.shape == (3, 2)
    for image in range(3):
        for text in range(2):
            close(scores[image, text], max(images[image, query] @ texts[text] for query in range(4)), 1e-4)


@pytest.mark.parametrize("function", SIMILARITY)
def test_only_the_best_query_receives_a_gradient(student, function):
    images, texts, upstream = torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(2, 2)
    _, gradients = student(function, upstream=upstream, image_embeddings=images, text_embeddings=texts)
    best = (images @ texts.T).argmax(dim=1)  # [images, texts]
    expected = torch.zeros_like(images)
    for image in range(2):
        for text in range(2):
            expected[image, best[image, text]] += upstream[image, text] * texts[text]
    close(gradients["image_embeddings"], expected, 1e-4)
    assert gradients["text_embeddings"].abs().max() > 0.01


# ── 3.2 and 3.3: three masks ──────────────────────────────────────────────────────────────────────────────────────────

LENGTHS = [3, 1, 4]
TEXT = 4


def reference_mask(student, task, queries, lengths=LENGTHS, text=TEXT):
    return student("reference:task_mask", task=task, queries=queries, lengths=lengths, text=text)[:, 0] == 0


def model_mask(student, task, queries, lengths=LENGTHS, text=TEXT):
    segments = torch.where(torch.arange(text) < torch.tensor(lengths)[:, None], 0, -1)
    return student("model.masks:task_mask_matrix", task=task, queries=queries, segments=segments)


MASKS = [
    pytest.param(reference_mask, marks=pytest.mark.exercise("3.2")),
    pytest.param(model_mask, marks=pytest.mark.exercise("3.3")),
]


def expected_mask(task, queries, length):
    """Return which of the queries and `length` text tokens attend to which, put together from four blocks."""
    to_queries, to_text = torch.ones(length, queries), torch.ones(length, length)
    from_queries = torch.ones(queries, length)
    if task == "contrastive":
        to_queries, from_queries = to_queries * 0, from_queries * 0
    if task == "generation":
        to_text, from_queries = to_text.tril(), from_queries * 0
    upper = torch.cat([torch.ones(queries, queries), from_queries], dim=1)
    return torch.cat([upper, torch.cat([to_queries, to_text], dim=1)]).bool()


@pytest.mark.parametrize("task_matrix", MASKS)
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_which_tokens_attend_to_which(student, task_matrix, queries, task):
    attends = task_matrix(student, task, queries)
    assert attends.shape == (len(LENGTHS), queries + TEXT, queries + TEXT)
    for row, length in enumerate(LENGTHS):
        size = queries + length
        assert torch.equal(attends[row, :size, :size], expected_mask(task, queries, length)), row


@pytest.mark.parametrize("task_matrix", MASKS)
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_masks_of_random_lengths(student, task_matrix, task):
    lengths, queries = torch.randint(1, 7, (5,)).tolist(), int(torch.randint(1, 5, ()))
    attends = task_matrix(student, task, queries, lengths, 6)
    for row, length in enumerate(lengths):
        size = queries + length
        assert torch.equal(attends[row, :size, :size], expected_mask(task, queries, length)), row
        assert not attends[row, :size, size:].any()


@pytest.mark.parametrize("task_matrix", MASKS)
@pytest.mark.parametrize("task", ["contrastive", "matching", "generation"])
def test_no_token_attends_to_padding(student, task_matrix, task):
    attends = task_matrix(student, task, 2)
    for row, length in enumerate(LENGTHS):
        assert not attends[row, : 2 + length, 2 + length :].any()


@pytest.mark.exercise("3.2")
def test_masked_scores_are_minus_infinity(student):
    mask = student("reference:task_mask", task="generation", queries=2, lengths=LENGTHS, text=TEXT)
    assert set(mask.unique().tolist()) == {0.0, -math.inf}
    assert mask.shape == (3, 1, 6, 6)  # one for all heads


# ── 3.5: hard negatives ───────────────────────────────────────────────────────────────────────────────────────────────

PROBABILITIES = "model.losses:hard_negative_probabilities"


@pytest.mark.exercise("3.5")
def test_probabilities_are_the_softmax_without_the_true_pair(student):
    scores = torch.tensor([[0.3, 1.0, 0.0], [2.0, -1.0, 1.0], [0.0, 0.0, 5.0]])
    probabilities = student(PROBABILITIES, scores=scores)
    for row, (better, worse) in enumerate([(1, 2), (0, 2), (0, 1)]):
        odds = math.exp(scores[row, better] - scores[row, worse])
        assert probabilities[row, better] == pytest.approx(odds / (1 + odds), abs=1e-3)
        assert probabilities[row, worse] == pytest.approx(1 / (1 + odds), abs=1e-3)
        assert probabilities[row, row] == 0


@pytest.mark.exercise("3.5")
def test_a_negative_can_always_be_drawn_and_never_the_true_pair(student):
    scores = torch.full((4, 4), -300.0).fill_diagonal_(300.0)
    probabilities = student(PROBABILITIES, scores=scores)
    close(probabilities.sum(1), torch.ones(4))
    close(probabilities, (1 - torch.eye(4)) / 3)
    drawn = torch.multinomial(probabilities, 50, replacement=True)
    assert not (drawn == torch.arange(4)[:, None]).any()


@pytest.mark.exercise("3.5")
def test_the_score_of_the_true_pair_does_not_change_the_odds(student):
    scores = torch.randn(4, 4)
    raised = scores + 2.0 * torch.eye(4)
    close(student(PROBABILITIES, scores=scores), student(PROBABILITIES, scores=raised), 1e-4)


@pytest.mark.exercise("3.5")
def test_no_gradient_flows_through_the_probabilities(student):
    _, gradients = student(PROBABILITIES, upstream=torch.randn(4, 4), scores=torch.randn(4, 4))
    assert (gradients["scores"] == 0).all()


@pytest.mark.exercise("3.5")
def test_large_scores_have_finite_probabilities(student):
    scores = torch.randn(5, 5) * 300
    probabilities = student(PROBABILITIES, scores=scores)
    close(probabilities.sum(1), torch.ones(5))
    assert (probabilities >= 0).all()
    others = scores.masked_fill(torch.eye(5).bool(), -math.inf)
    leads = scores.diagonal() < others.amax(dim=1)  # elsewhere the constant decides
    assert torch.equal(probabilities.argmax(dim=1)[leads], others.argmax(dim=1)[leads])


# ── 3.6: next-token cross-entropy without padding ─────────────────────────────────────────────────────────────────────

LOSS = "model.losses:language_modeling_loss"


def loss_arguments():
    return {
        "logits": torch.randn(3, 5, 7),
        "token_ids": torch.randint(0, 7, (3, 5)),
        "segments": torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, -1, -1], [0, 0, -1, -1, -1]]),
    }


@pytest.mark.exercise("3.6")
def test_the_loss_is_the_mean_cross_entropy_of_each_next_token(student):
    arguments = loss_arguments()
    log_probabilities = arguments["logits"].double().log_softmax(-1)
    cross_entropies = [
        -log_probabilities[row, place - 1, arguments["token_ids"][row, place]]
        for row, length in enumerate((5, 3, 2))
        for place in range(1, length)
    ]
    assert student(LOSS, **arguments).item() == pytest.approx(sum(cross_entropies).item() / 7, rel=1e-5)


@pytest.mark.exercise("3.6")
def test_every_token_has_the_same_weight_and_padding_has_none(student):
    arguments = loss_arguments()
    _, gradients = student(LOSS, upstream=torch.tensor(1.0), **arguments)
    expected = torch.zeros(3, 5, 7)
    for row, length in enumerate((5, 3, 2)):
        for place in range(length - 1):
            target = F.one_hot(arguments["token_ids"][row, place + 1], 7)
            expected[row, place] = (arguments["logits"][row, place].softmax(-1) - target) / 7
    close(gradients["logits"], expected)


@pytest.mark.exercise("3.6")
def test_the_loss_of_large_logits_is_finite(student):
    arguments = loss_arguments()
    losses = [student(LOSS, **arguments | {"logits": arguments["logits"] * size}).item() for size in (1000, 2000)]
    assert losses[0] > 100 and losses[1] == pytest.approx(2 * losses[0], rel=1e-4)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        "model.losses:image_text_similarity",
        {"image_embeddings": torch.ones(1, 2, 3), "text_embeddings": torch.ones(1, 3)},
        [(1, 1)],
        marks=pytest.mark.exercise("3.4"),
    ),
    pytest.param(PROBABILITIES, {"scores": torch.zeros(2, 2)[:1, :1]}, [(1, 1)], marks=pytest.mark.exercise("3.5")),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
