"""The exercises, each called through `student`. A mistake in an exercise fails at least one test."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=0)


# ── 4.1 and 4.4: each token attends to one image ──────────────────────────────────────────────────────────────────────

IMAGE_INDEX = [[-1, -1, 0, 0, 1], [0, 1, 1, 2, 2], [-1, -1, -1, -1, -1]]
REFERENCE_MASK = "reference:cross_attention_mask"


def reference_mask(student, images, latents, image_index=IMAGE_INDEX):
    return student(REFERENCE_MASK, image_index=image_index, images=images, latents=latents)[:, 0] == 0


def model_mask(student, images, latents, image_index=IMAGE_INDEX):
    arguments = {"image_index": torch.tensor(image_index), "images": images, "latents": latents}
    return student("model.interleaved:cross_attention_matrix", **arguments)


MASKS = [
    pytest.param(reference_mask, marks=pytest.mark.exercise("4.1")),
    pytest.param(model_mask, marks=pytest.mark.exercise("4.4")),
]


@pytest.mark.parametrize("mask_matrix", MASKS)
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_a_token_attends_to_every_latent_of_its_image_and_to_no_other(student, mask_matrix, latents):
    attends = mask_matrix(student, 3, latents)
    assert attends.shape == (3, 5, 3 * latents)
    for row, image_index in enumerate(IMAGE_INDEX):
        for token, index in enumerate(image_index):
            for image in range(3):
                latents_of_image = attends[row, token, image * latents : (image + 1) * latents]
                assert latents_of_image.all() if image == index else not latents_of_image.any()


@pytest.mark.exercise("4.1")
def test_masked_scores_are_minus_infinity(student):
    mask = student(REFERENCE_MASK, image_index=IMAGE_INDEX, images=3, latents=2)
    assert set(mask.unique().tolist()) == {0.0, -math.inf}
    assert mask.shape == (3, 1, 5, 6)  # one for all heads


@pytest.mark.parametrize("mask_matrix", MASKS)
def test_the_latents_of_random_images(student, mask_matrix):
    image_index = torch.randint(-1, 4, (3, 7))
    attends = mask_matrix(student, 4, 3, image_index.tolist()).unflatten(2, (4, 3))
    assert attends.shape == (3, 7, 4, 3)
    for image in range(4):
        assert torch.equal(attends[:, :, image].all(dim=-1), image_index == image)
        assert torch.equal(attends[:, :, image].any(dim=-1), image_index == image)


# ── 4.2 and 4.5: a residual with a tanh gate ──────────────────────────────────────────────────────────────────────────

MODEL_GATE = "model.gated_cross_attention:gated_residual"
GATED = [
    pytest.param("reference:gated_residual", marks=pytest.mark.exercise("4.2")),
    pytest.param(MODEL_GATE, marks=pytest.mark.exercise("4.5")),
]


@pytest.mark.parametrize("function", GATED)
def test_at_gate_zero_nothing_is_added_to_the_last_bit(student, function):
    x, update = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double() * 1e3
    assert torch.equal(student(function, x=x, update=update, gate=torch.zeros(4).double()).double(), x)


@pytest.mark.parametrize("function", GATED)
@pytest.mark.parametrize("gates", [1, 4])
def test_the_update_is_multiplied_by_tanh_of_the_gate(student, function, gates):
    x, update, gate = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(gates) * 2
    close(student(function, x=x, update=update, gate=gate), x + torch.tanh(gate) * update)


@pytest.mark.parametrize("function", GATED)
def test_at_gate_zero_only_the_gate_gets_a_gradient(student, function):
    x, update, upstream = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    _, gradients = student(function, upstream=upstream, x=x, update=update, gate=torch.zeros(4))
    close(gradients["gate"], (upstream * update).sum(dim=(0, 1)), 1e-4)
    assert (gradients["update"] == 0).all()
    close(gradients["x"], upstream)


@pytest.mark.exercise("4.5")
def test_without_a_gate_the_whole_update_is_added(student):
    x, update = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    close(student(MODEL_GATE, x=x, update=update, gate=None), x + update)


# ── 4.3: the index of each token's latest image ───────────────────────────────────────────────────────────────────────

LATEST = "model.interleaved:latest_image_index"
IMAGE = 9


@pytest.mark.exercise("4.3")
@pytest.mark.parametrize(
    ("token_ids", "segments", "expected"),
    [
        ([1, IMAGE, 2, IMAGE, 3], [0, 0, 0, 0, 0], [-1, 0, 0, 1, 1]),
        ([IMAGE, IMAGE, 2, 2, IMAGE], [0, 0, 0, 0, 0], [0, 1, 1, 1, 2]),
        ([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [-1] * 5),
        # Two documents in a row: the second starts without an image, and its image is the row's second.
        ([1, IMAGE, 2, 1, 5, IMAGE, 3], [0, 0, 0, 1, 1, 1, 1], [-1, 0, 0, -1, -1, 1, 1]),
        ([IMAGE, 2, IMAGE, 2, 1, 1], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, -1, -1]),
        # Padding attends to no image, not even to one in it.
        ([1, IMAGE, 2, 0, 0], [0, 0, 0, -1, -1], [-1, 0, 0, -1, -1]),
        ([1, 2, IMAGE, 0], [0, 0, -1, -1], [-1, -1, -1, -1]),
        # An image can be all of its document, and ids may be larger than its own.
        ([IMAGE, 2, 12, IMAGE], [0, 1, 1, 1], [0, -1, -1, 1]),
    ],
)
def test_each_token_attends_to_the_latest_image_of_its_document(student, token_ids, segments, expected):
    arguments = {"token_ids": torch.tensor([token_ids]), "segments": torch.tensor([segments])}
    assert student(LATEST, **arguments, image_token_id=IMAGE).tolist() == [expected]


@pytest.mark.exercise("4.3")
def test_rows_are_independent(student):
    token_ids = torch.randint(5, 10, (6, 12))
    segments = torch.randint(0, 3, (6, 12)).sort(dim=1).values
    together = student(LATEST, token_ids=token_ids, segments=segments, image_token_id=IMAGE)
    alone = [
        student(LATEST, token_ids=token_ids[k : k + 1], segments=segments[k : k + 1], image_token_id=IMAGE)
        for k in range(6)
    ]
    assert torch.equal(together, torch.cat(alone))


# ── 4.6: the cross-entropy of the tokens in the loss mask ─────────────────────────────────────────────────────────────

TEXT_LOSS = "model.flamingo:text_loss"


def loss_arguments():
    loss_mask = torch.tensor([[False, True, False, True, True], [False, False, True, False, False]])
    return {"logits": torch.randn(2, 5, 7), "token_ids": torch.randint(0, 7, (2, 5)), "loss_mask": loss_mask}


@pytest.mark.exercise("4.6")
def test_the_loss_is_the_mean_cross_entropy_in_the_loss_mask(student):
    arguments = loss_arguments()
    log_probabilities = arguments["logits"].double().log_softmax(-1)
    places = [(0, 1), (0, 3), (0, 4), (1, 2)]
    losses = [-log_probabilities[row, place - 1, arguments["token_ids"][row, place]] for row, place in places]
    assert student(TEXT_LOSS, **arguments).item() == pytest.approx(sum(losses).item() / 4, rel=1e-5)


@pytest.mark.exercise("4.6")
def test_only_tokens_in_the_loss_mask_have_a_gradient(student):
    arguments = loss_arguments()
    _, gradients = student(TEXT_LOSS, upstream=torch.tensor(1.0), **arguments)
    expected = torch.zeros(2, 5, 7)
    for row, place in ((0, 1), (0, 3), (0, 4), (1, 2)):
        target = F.one_hot(arguments["token_ids"][row, place], 7)
        expected[row, place - 1] = (arguments["logits"][row, place - 1].softmax(-1) - target) / 4
    close(gradients["logits"], expected)


@pytest.mark.exercise("4.6")
def test_the_loss_of_large_logits_is_finite(student):
    arguments = loss_arguments()
    losses = [student(TEXT_LOSS, **arguments | {"logits": arguments["logits"] * size}).item() for size in (1000, 2000)]
    assert losses[0] > 100 and losses[1] == pytest.approx(2 * losses[0], rel=1e-4)


# ── axes of size 1 ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZE_ONE = [
    pytest.param(
        REFERENCE_MASK,
        {"image_index": [[0, -1]], "images": 1, "latents": 1},
        [(1, 1, 2, 1)],
        marks=pytest.mark.exercise("4.1"),
    ),
    pytest.param(
        MODEL_GATE,
        {"x": torch.ones(1, 2, 1), "update": torch.ones(1, 2, 1), "gate": torch.ones(1)},
        [(1, 2, 1)],
        marks=pytest.mark.exercise("4.5"),
    ),
]


@pytest.mark.parametrize(("function", "arguments", "shapes"), SIZE_ONE)
def test_axes_of_size_one_stay(student, function, arguments, shapes):
    result = student(function, **arguments)
    assert [tuple(part.shape) for part in (result if isinstance(result, tuple) else (result,))] == shapes
