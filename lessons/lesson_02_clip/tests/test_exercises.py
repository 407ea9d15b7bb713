"""The exercises of this lesson: each test checks a property, and every planted bug breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


def pairs(batch=5, width=4):
    """Return unit vectors that match approximately, row by row."""
    images = F.normalize(torch.randn(batch, width, dtype=torch.float64), dim=-1)
    texts = F.normalize(images + 0.7 * torch.randn(batch, width, dtype=torch.float64), dim=-1)
    return {"images": images, "texts": texts}


def by_definition(images, texts, scale):
    """Return InfoNCE with every logarithm written out."""
    scores = (scale * images @ texts.T).tolist()
    batch = len(scores)
    loss = 0.0
    for i in range(batch):
        row, column = scores[i], [scores[j][i] for j in range(batch)]
        loss += math.log(sum(math.exp(score - row[i]) for score in row)) / (2 * batch)
        loss += math.log(sum(math.exp(score - row[i]) for score in column)) / (2 * batch)
    return loss


# ── 2.1 and 2.3: InfoNCE ──────────────────────────────────────────────────────────────────────────────────────────────

# The reference takes the logarithm of the scale, the PyTorch version the scale.
INFO_NCE = [
    pytest.param("reference:info_nce", "log_scale", math.log, marks=pytest.mark.exercise("2.1")),
    pytest.param("model.losses:info_nce", "logit_scale", float, marks=pytest.mark.exercise("2.3")),
]


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("function", "name", "convert"), INFO_NCE)
@pytest.mark.parametrize(("batch", "scale"), [(2, 1.0), (5, 10.0), (7, 0.3)])
def test_the_loss_equals_its_definition(student, function, name, convert, batch, scale):
    both = pairs(batch)
    loss = student(function, **both, **{name: scalar(convert(scale))})
    assert loss.item() == pytest.approx(by_definition(**both, scale=scale))


@pytest.mark.parametrize(("function", "name", "convert"), INFO_NCE)
def test_swapping_the_sides_has_no_effect_and_mismatching_rows_has_one(student, function, name, convert):
    both, scale = pairs(), {name: scalar(convert(8.0))}
    loss = student(function, **both, **scale)
    close(student(function, images=both["texts"], texts=both["images"], **scale), loss)
    order = torch.tensor([3, 1, 4, 0, 2])
    close(student(function, images=both["images"][order], texts=both["texts"][order], **scale), loss)
    assert student(function, images=both["images"], texts=both["texts"].roll(1, 0), **scale) > loss + 1


@pytest.mark.parametrize(("function", "name", "convert"), INFO_NCE)
def test_a_larger_scale_lowers_the_loss_of_matches_and_raises_that_of_mismatches(student, function, name, convert):
    vectors = torch.eye(4, dtype=torch.float64)
    low, high = ({name: scalar(convert(scale))} for scale in (2.0, 9.0))
    assert student(function, images=vectors, texts=vectors, **high) < student(
        function, images=vectors, texts=vectors, **low
    )
    mismatched = vectors.roll(1, 0)
    assert student(function, images=vectors, texts=mismatched, **high) > student(
        function, images=vectors, texts=mismatched, **low
    )


@pytest.mark.parametrize(("function", "name", "convert"), INFO_NCE)
def test_all_arguments_get_their_gradients(student, function, name, convert):
    both = {side: vectors.requires_grad_() for side, vectors in pairs().items()}
    scale = scalar(convert(6.0)).requires_grad_()
    logit_scale = scale.exp() if name == "log_scale" else scale
    logits = logit_scale * both["images"] @ both["texts"].T
    labels = torch.arange(5)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    expected = torch.autograd.grad(loss, [both["images"], both["texts"], scale])
    plain = {side: vectors.detach() for side, vectors in both.items()}
    _, gradients = student(function, upstream=scalar(1.0), **plain, **{name: scale.detach()})
    for argument, gradient in zip(("images", "texts", name), expected, strict=True):
        assert gradient.abs().max() > 1e-3
        close(gradients[argument], gradient)


@pytest.mark.parametrize(("function", "name", "convert"), INFO_NCE)
def test_the_loss_at_a_low_temperature_is_finite(student, function, name, convert):
    both = pairs()
    loss = student(function, **both, **{name: scalar(convert(3000.0))})
    scores = 3000 * both["images"] @ both["texts"].T
    # Almost all probability is on the greatest score of a row or column.
    gaps = [(scores.amax(dim=dim) - scores.diagonal()).mean() / 2 for dim in (0, 1)]
    close(loss, sum(gaps), 1.0)


# ── 2.2: the gradient by hand ─────────────────────────────────────────────────────────────────────────────────────────

BY_HAND = "reference:info_nce_gradient"


@pytest.mark.exercise("2.2")
@pytest.mark.parametrize(("batch", "width", "scale"), [(2, 3, 1.0), (5, 4, 10.0), (6, 2, 0.2)])
def test_the_gradient_equals_finite_differences(student, batch, width, scale):
    both, log_scale = pairs(batch, width), scalar(math.log(scale))
    gradients = student(BY_HAND, **both, log_scale=log_scale)
    assert [list(gradient.shape) for gradient in gradients] == [[batch, width], [batch, width], []]
    step = 1e-5

    def loss(images, texts, log_scale):
        return by_definition(images, texts, math.exp(log_scale))

    for side, gradient in (("images", gradients[0]), ("texts", gradients[1])):
        for row in range(batch):
            for column in range(width):
                change = torch.zeros(batch, width, dtype=torch.float64)
                change[row, column] = step
                up, down = (
                    loss(**both | {side: both[side] + sign * change}, log_scale=log_scale.item()) for sign in (1, -1)
                )
                assert gradient[row, column].item() == pytest.approx((up - down) / (2 * step), abs=1e-6)
    up, down = (loss(**both, log_scale=log_scale.item() + sign * step) for sign in (1, -1))
    assert gradients[2].item() == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.exercise("2.2")
def test_the_gradient_at_a_low_temperature_is_finite(student):
    both = pairs()
    gradients = student(BY_HAND, **both, log_scale=scalar(math.log(4000.0)))
    assert all(gradient.isfinite().all() for gradient in gradients)


# ── 2.4: the sigmoid loss ─────────────────────────────────────────────────────────────────────────────────────────────

SIGMOID = "model.losses:sigmoid_loss"


@pytest.mark.exercise("2.4")
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (3.0, 2.0)])
def test_the_loss_is_the_sum_over_pairs(student, scale, bias):
    both = pairs()
    scores = (scale * both["images"] @ both["texts"].T + bias).tolist()
    expected = (
        sum(math.log1p(math.exp(-scores[i][j] if i == j else scores[i][j])) for i in range(5) for j in range(5)) / 5
    )
    loss = student(SIGMOID, **both, logit_scale=scalar(scale), logit_bias=scalar(bias))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.exercise("2.4")
def test_the_gradient_is_the_probability_minus_the_label(student):
    both = pairs()
    arguments = {"logit_scale": scalar(5.0), "logit_bias": scalar(-2.0)}
    _, gradients = student(SIGMOID, upstream=scalar(1.0), **both, **arguments)
    logit_gradients = (torch.sigmoid(5.0 * both["images"] @ both["texts"].T - 2.0) - torch.eye(5)) / 5
    close(gradients["logit_bias"], logit_gradients.sum())
    close(gradients["images"], 5.0 * logit_gradients @ both["texts"])
    close(gradients["texts"], 5.0 * logit_gradients.T @ both["images"])
    close(gradients["logit_scale"], (logit_gradients * (both["images"] @ both["texts"].T)).sum())


@pytest.mark.exercise("2.4")
def test_extreme_scores_stay_finite(student):
    both, arguments = pairs(), {"logit_scale": scalar(4000.0), "logit_bias": scalar(-10.0)}
    loss, gradients = student(SIGMOID, upstream=scalar(1.0), **both, **arguments)
    assert loss.isfinite() and loss > 1 and all(gradient.isfinite().all() for gradient in gradients.values())


# ── 2.5: the token that represents the caption ────────────────────────────────────────────────────────────────────────

END = "model.text_encoder:end_token_index"


@pytest.mark.exercise("2.5")
def test_the_first_end_token_is_used(student):
    token_ids = torch.tensor([[1, 8, 3, 7, 7, 7], [1, 7, 9, 9, 7, 2], [1, 2, 3, 4, 5, 7]])
    assert student(END, token_ids=token_ids, end_token=7).tolist() == [3, 1, 5]


@pytest.mark.exercise("2.5")
def test_without_its_id_the_first_of_the_largest_ids_is_used(student):
    token_ids = torch.tensor([[1, 8, 3, 9, 9, 9], [1, 7, 9, 3, 9, 2], [9, 2, 3, 4, 5, 7]])
    assert student(END, token_ids=token_ids, end_token=None).tolist() == [3, 2, 0]
    # If the end token is known, larger ids have no effect.
    assert student(END, token_ids=token_ids, end_token=3).tolist() == [2, 3, 2]


@pytest.mark.exercise("2.5")
def test_the_end_token_may_have_id_zero(student):
    token_ids = torch.tensor([[4, 8, 0, 0], [4, 0, 9, 9]])
    assert student(END, token_ids=token_ids, end_token=0).tolist() == [2, 1]


@pytest.mark.exercise("2.5")
def test_the_end_token_of_each_row_of_random_captions(student):
    token_ids = torch.randint(0, 9, (6, 8))
    token_ids[torch.arange(6), torch.randint(0, 8, (6,))] = 5
    rows = token_ids.tolist()
    assert student(END, token_ids=token_ids, end_token=5).tolist() == [row.index(5) for row in rows]
    assert student(END, token_ids=token_ids, end_token=None).tolist() == [row.index(max(row)) for row in rows]


# ── 2.6: prompt ensembles ─────────────────────────────────────────────────────────────────────────────────────────────

ENSEMBLE = "model.zero_shot:ensemble"


@pytest.mark.exercise("2.6")
def test_an_ensemble_is_the_direction_of_the_mean(student):
    prompts = F.normalize(torch.randn(3, 4, 6), dim=-1)
    vectors = student(ENSEMBLE, prompts=prompts)
    assert vectors.shape == (3, 6)
    close(vectors.norm(dim=-1), torch.ones(3))
    for vector, class_prompts in zip(vectors, prompts, strict=True):
        mean = sum(class_prompts) / 4
        close(vector, mean / mean.norm())


@pytest.mark.exercise("2.6")
def test_an_ensemble_of_one_is_the_prompt_and_order_has_no_effect(student):
    prompts = F.normalize(torch.randn(3, 4, 6), dim=-1)
    close(student(ENSEMBLE, prompts=prompts[:, :1]), prompts[:, 0])
    close(student(ENSEMBLE, prompts=prompts.flip(1)), student(ENSEMBLE, prompts=prompts))


# ── 2.7: recall at k ─────────────────────────────────────────────────────────────────────────────────────────────────

RECALL = "model.zero_shot:recall_at"


@pytest.mark.exercise("2.7")
def test_recall_of_known_ranks(student):
    similarity = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8], [0.3, 0.1, 0.2, 0.0]])
    matches = torch.tensor([0, 1, 3])  # first, third, last
    recalls = [student(RECALL, k=k, similarity=similarity, matches=matches).item() for k in (1, 2, 3, 4)]
    assert recalls == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1.0])


@pytest.mark.exercise("2.7")
def test_constant_similarity_has_no_recall(student):
    similarity, matches = torch.full((6, 6), 0.5), torch.arange(6)
    assert student(RECALL, k=5, similarity=similarity, matches=matches).item() == 0.0
    assert student(RECALL, k=6, similarity=similarity, matches=matches).item() == 1.0


@pytest.mark.exercise("2.7")
def test_recall_of_random_similarities_with_ties(student):
    similarity, matches = torch.randint(0, 5, (7, 6)).float(), torch.randint(0, 6, (7,))
    before = [
        len([other for place, other in enumerate(row) if place != match and not other < row[match]])
        for row, match in zip(similarity.tolist(), matches.tolist(), strict=True)
    ]
    for k in range(1, 7):
        recall = student(RECALL, k=k, similarity=similarity, matches=matches).item()
        assert recall == pytest.approx(len([number for number in before if number < k]) / 7)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        END, {"token_ids": torch.tensor([[4, 7, 2]]), "end_token": 7}, [(1,)], marks=pytest.mark.exercise("2.5")
    ),
    pytest.param(
        END, {"token_ids": torch.tensor([[4, 7, 2]]), "end_token": None}, [(1,)], marks=pytest.mark.exercise("2.5")
    ),
    pytest.param(ENSEMBLE, {"prompts": torch.ones(1, 2, 3)}, [(1, 3)], marks=pytest.mark.exercise("2.6")),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
