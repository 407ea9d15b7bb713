"""The exercises of this lesson: each test says what must hold, and a small mistake breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(given, expected, tolerance=1e-6):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


def pairs(batch=5, width=4):
    """Unit vectors that belong together row by row, more or less."""
    images = F.normalize(torch.randn(batch, width, dtype=torch.float64), dim=-1)
    texts = F.normalize(images + 0.7 * torch.randn(batch, width, dtype=torch.float64), dim=-1)
    return {"images": images, "texts": texts}


def by_definition(images, texts, scale):
    """InfoNCE with every logarithm written out."""
    scores = (scale * images @ texts.T).tolist()
    batch = len(scores)
    loss = 0.0
    for i in range(batch):
        row, column = scores[i], [scores[j][i] for j in range(batch)]
        loss += math.log(sum(math.exp(score - row[i]) for score in row)) / (2 * batch)
        loss += math.log(sum(math.exp(score - row[i]) for score in column)) / (2 * batch)
    return loss


# ── 2.1 and 2.3: InfoNCE ──────────────────────────────────────────────────────────────────────────────────────────────

# The reference learns the logarithm of the scale, and the PyTorch version is given the scale itself.
INFO_NCE = [
    pytest.param("reference:info_nce", "log_scale", math.log, marks=pytest.mark.exercise("2.1")),
    pytest.param("model.losses:info_nce", "logit_scale", float, marks=pytest.mark.exercise("2.3")),
]


def number(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("where", "name", "given"), INFO_NCE)
@pytest.mark.parametrize(("batch", "scale"), [(2, 1.0), (5, 10.0), (7, 0.3)])
def test_the_loss_is_its_definition(student, where, name, given, batch, scale):
    both = pairs(batch)
    loss = student(where, **both, **{name: number(given(scale))})
    assert loss.item() == pytest.approx(by_definition(**both, scale=scale))


@pytest.mark.parametrize(("where", "name", "given"), INFO_NCE)
def test_swapping_the_sides_changes_nothing_and_mixing_up_rows_does(student, where, name, given):
    both, scale = pairs(), {name: number(given(8.0))}
    straight = student(where, **both, **scale)
    close(student(where, images=both["texts"], texts=both["images"], **scale), straight)
    order = torch.tensor([3, 1, 4, 0, 2])
    close(student(where, images=both["images"][order], texts=both["texts"][order], **scale), straight)
    assert student(where, images=both["images"], texts=both["texts"].roll(1, 0), **scale) > straight + 1


@pytest.mark.parametrize(("where", "name", "given"), INFO_NCE)
def test_a_larger_scale_makes_the_right_surer_and_the_wrong_dearer(student, where, name, given):
    right = torch.eye(4, dtype=torch.float64)
    low, high = ({name: number(given(scale))} for scale in (2.0, 9.0))
    assert student(where, images=right, texts=right, **high) < student(where, images=right, texts=right, **low)
    wrong = right.roll(1, 0)
    assert student(where, images=right, texts=wrong, **high) > student(where, images=right, texts=wrong, **low)


@pytest.mark.parametrize(("where", "name", "given"), INFO_NCE)
def test_every_gradient_comes_through(student, where, name, given):
    both = {side: vectors.requires_grad_() for side, vectors in pairs().items()}
    scale = number(given(6.0)).requires_grad_()
    real = scale.exp() if name == "log_scale" else scale
    logits = real * both["images"] @ both["texts"].T
    own = torch.arange(5)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    wanted = torch.autograd.grad(expected, [both["images"], both["texts"], scale])
    plain = {side: vectors.detach() for side, vectors in both.items()}
    _, gradients = student(where, upstream=number(1.0), **plain, **{name: scale.detach()})
    for argument, gradient in zip(("images", "texts", name), wanted, strict=True):
        assert gradient.abs().max() > 1e-3
        close(gradients[argument], gradient)


# ── 2.2: the gradient by hand ─────────────────────────────────────────────────────────────────────────────────────────

BY_HAND = "reference:info_nce_gradient"


@pytest.mark.exercise("2.2")
@pytest.mark.parametrize(("batch", "width", "scale"), [(2, 3, 1.0), (5, 4, 10.0), (6, 2, 0.2)])
def test_the_gradient_is_that_of_small_changes(student, batch, width, scale):
    both, log_scale = pairs(batch, width), number(math.log(scale))
    found = student(BY_HAND, **both, log_scale=log_scale)
    assert [list(part.shape) for part in found] == [[batch, width], [batch, width], []]
    step = 1e-5

    def loss(images, texts, log_scale):
        return by_definition(images, texts, math.exp(log_scale))

    for side, gradient in (("images", found[0]), ("texts", found[1])):
        for row in range(batch):
            for column in range(width):
                change = torch.zeros(batch, width, dtype=torch.float64)
                change[row, column] = step
                up, down = (
                    loss(**both | {side: both[side] + sign * change}, log_scale=log_scale.item()) for sign in (1, -1)
                )
                assert gradient[row, column].item() == pytest.approx((up - down) / (2 * step), abs=1e-6)
    up, down = (loss(**both, log_scale=log_scale.item() + sign * step) for sign in (1, -1))
    assert found[2].item() == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.exercise("2.2")
def test_the_gradient_of_sharp_temperatures_stays_a_number(student):
    both = pairs()
    found = student(BY_HAND, **both, log_scale=number(math.log(4000.0)))
    assert all(part.isfinite().all() for part in found)


# ── 2.4: the sigmoid loss ─────────────────────────────────────────────────────────────────────────────────────────────

SIGMOID = "model.losses:sigmoid_loss"


@pytest.mark.exercise("2.4")
@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (10.0, -10.0), (3.0, 2.0)])
def test_every_pair_pays_for_itself(student, scale, bias):
    both = pairs()
    scores = (scale * both["images"] @ both["texts"].T + bias).tolist()
    expected = (
        sum(math.log1p(math.exp(-scores[i][j] if i == j else scores[i][j])) for i in range(5) for j in range(5)) / 5
    )
    loss = student(SIGMOID, **both, logit_scale=number(scale), logit_bias=number(bias))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.exercise("2.4")
def test_the_slope_is_what_was_claimed_less_what_is_true(student):
    both = pairs()
    arguments = {"logit_scale": number(5.0), "logit_bias": number(-2.0)}
    _, gradients = student(SIGMOID, upstream=number(1.0), **both, **arguments)
    slopes = (torch.sigmoid(5.0 * both["images"] @ both["texts"].T - 2.0) - torch.eye(5)) / 5
    close(gradients["logit_bias"], slopes.sum())
    close(gradients["images"], 5.0 * slopes @ both["texts"])
    close(gradients["texts"], 5.0 * slopes.T @ both["images"])
    close(gradients["logit_scale"], (slopes * (both["images"] @ both["texts"].T)).sum())


@pytest.mark.exercise("2.4")
def test_extreme_scores_stay_numbers(student):
    both, arguments = pairs(), {"logit_scale": number(4000.0), "logit_bias": number(-10.0)}
    loss, gradients = student(SIGMOID, upstream=number(1.0), **both, **arguments)
    assert loss.isfinite() and loss > 1 and all(gradient.isfinite().all() for gradient in gradients.values())


# ── 2.5: the token that speaks for its caption ────────────────────────────────────────────────────────────────────────

END = "model.text_encoder:end_token_index"


@pytest.mark.exercise("2.5")
def test_the_first_end_speaks(student):
    token_ids = torch.tensor([[1, 8, 3, 7, 7, 7], [1, 7, 9, 9, 7, 2], [1, 2, 3, 4, 5, 7]])
    assert student(END, token_ids=token_ids, end_token=7).tolist() == [3, 1, 5]


@pytest.mark.exercise("2.5")
def test_without_its_number_the_first_of_the_largest_speaks(student):
    token_ids = torch.tensor([[1, 8, 3, 9, 9, 9], [1, 7, 9, 3, 9, 2], [9, 2, 3, 4, 5, 7]])
    assert student(END, token_ids=token_ids, end_token=None).tolist() == [3, 2, 0]
    # A number that is not the end's, though it may be the largest, does not count where the end is known.
    assert student(END, token_ids=token_ids, end_token=3).tolist() == [2, 3, 2]


@pytest.mark.exercise("2.5")
def test_the_end_may_have_the_number_zero(student):
    token_ids = torch.tensor([[4, 8, 0, 0], [4, 0, 9, 9]])
    assert student(END, token_ids=token_ids, end_token=0).tolist() == [2, 1]


# ── 2.6: many prompts, one class ──────────────────────────────────────────────────────────────────────────────────────

ENSEMBLE = "model.zero_shot:ensemble"


@pytest.mark.exercise("2.6")
def test_an_ensemble_is_the_direction_of_the_mean(student):
    prompts = F.normalize(torch.randn(3, 4, 6), dim=-1)
    vectors = student(ENSEMBLE, prompts=prompts)
    assert vectors.shape == (3, 6)
    close(vectors.norm(dim=-1), torch.ones(3))
    for given, of_class in zip(vectors, prompts, strict=True):
        mean = sum(of_class) / 4
        close(given, mean / mean.norm())


@pytest.mark.exercise("2.6")
def test_one_prompt_is_its_own_ensemble_and_order_does_not_matter(student):
    prompts = F.normalize(torch.randn(3, 4, 6), dim=-1)
    close(student(ENSEMBLE, prompts=prompts[:, :1]), prompts[:, 0])
    close(student(ENSEMBLE, prompts=prompts.flip(1)), student(ENSEMBLE, prompts=prompts))


# ── 2.7: found among the first k ──────────────────────────────────────────────────────────────────────────────────────

RECALL = "model.zero_shot:recall_at"


@pytest.mark.exercise("2.7")
def test_recall_of_ranks_one_can_count(student):
    similarity = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.4, 0.6, 0.8], [0.3, 0.1, 0.2, 0.0]])
    matches = torch.tensor([0, 1, 3])  # first, third, last
    found = [student(RECALL, k=k, similarity=similarity, matches=matches).item() for k in (1, 2, 3, 4)]
    assert found == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1.0])


@pytest.mark.exercise("2.7")
def test_a_model_that_says_the_same_of_all_finds_nothing(student):
    similarity, matches = torch.full((6, 6), 0.5), torch.arange(6)
    assert student(RECALL, k=5, similarity=similarity, matches=matches).item() == 0.0
    assert student(RECALL, k=6, similarity=similarity, matches=matches).item() == 1.0
