"""The exercises. Each is reached through `student` alone: numbers in, numbers out. A mistake breaks one of them."""

import math

import pytest
import torch
from torch.nn import functional as F


def close(given, expected, tolerance=1e-5):
    torch.testing.assert_close(given.double(), expected.double(), atol=tolerance, rtol=0)


# ── 4.1 and 4.4: each word sees one image ─────────────────────────────────────────────────────────────────────────────

LOOKS = [[-1, -1, 0, 0, 1], [0, 1, 1, 2, 2], [-1, -1, -1, -1, -1]]


def seen_by_reference(student, images, latents):
    return student("reference:media_mask", looks=LOOKS, images=images, latents=latents)[:, 0] == 0


def seen_by_model(student, images, latents):
    return student("model.sequences:sees", looks=torch.tensor(LOOKS), images=images, latents=latents)


MASKS = [
    pytest.param(seen_by_reference, marks=pytest.mark.exercise("4.1")),
    pytest.param(seen_by_model, marks=pytest.mark.exercise("4.4")),
]


@pytest.mark.parametrize("seen_by", MASKS)
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_a_word_sees_every_latent_of_its_image_and_none_of_another(student, seen_by, latents):
    seen = seen_by(student, 3, latents)
    assert seen.shape == (3, 5, 3 * latents)
    for row, looks in enumerate(LOOKS):
        for token, look in enumerate(looks):
            for image in range(3):
                own = seen[row, token, image * latents : (image + 1) * latents]
                assert own.all() if image == look else not own.any()


@pytest.mark.exercise("4.1")
def test_what_is_hidden_has_no_weight_at_all(student):
    mask = student("reference:media_mask", looks=LOOKS, images=3, latents=2)
    assert set(mask.unique().tolist()) == {0.0, -math.inf}
    assert mask.shape == (3, 1, 5, 6)  # one for all heads


# ── 4.2 and 4.5: a gate that begins closed ────────────────────────────────────────────────────────────────────────────

GATED = [
    pytest.param("reference:gated", marks=pytest.mark.exercise("4.2")),
    pytest.param("model.gated:gated", marks=pytest.mark.exercise("4.5")),
]


@pytest.mark.parametrize("where", GATED)
def test_at_zero_nothing_is_added_to_the_bit(student, where):
    x, update = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double() * 1e3
    assert torch.equal(student(where, x=x, update=update, gate=torch.zeros(4).double()).double(), x)


@pytest.mark.parametrize("where", GATED)
@pytest.mark.parametrize("gates", [1, 4])
def test_what_is_added_is_the_update_times_tanh(student, where, gates):
    x, update, gate = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(gates) * 2
    close(student(where, x=x, update=update, gate=gate), x + torch.tanh(gate) * update)


@pytest.mark.parametrize("where", GATED)
def test_a_closed_gate_learns_first(student, where):
    """At zero the update gets no gradient and the gate gets all of it."""
    x, update, upstream = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    _, gradients = student(where, upstream=upstream, x=x, update=update, gate=torch.zeros(4))
    close(gradients["gate"], (upstream * update).sum(dim=(0, 1)), 1e-4)
    assert (gradients["update"] == 0).all()
    close(gradients["x"], upstream)


@pytest.mark.exercise("4.5")
def test_without_a_gate_all_is_added(student):
    x, update = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    close(student("model.gated:gated", x=x, update=update, gate=None), x + update)


# ── 4.3: each token's latest image ────────────────────────────────────────────────────────────────────────────────────

LATEST = "model.sequences:latest_image"
IMAGE = 9


@pytest.mark.exercise("4.3")
@pytest.mark.parametrize(
    ("tokens", "segments", "expected"),
    [
        ([1, IMAGE, 2, IMAGE, 3], [0, 0, 0, 0, 0], [-1, 0, 0, 1, 1]),
        ([IMAGE, IMAGE, 2, 2, IMAGE], [0, 0, 0, 0, 0], [0, 1, 1, 1, 2]),
        ([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [-1] * 5),
        # Two documents in a row: the second starts blind, and its image is the row's second.
        ([1, IMAGE, 2, 1, 5, IMAGE, 3], [0, 0, 0, 1, 1, 1, 1], [-1, 0, 0, -1, -1, 1, 1]),
        ([IMAGE, 2, IMAGE, 2, 1, 1], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, -1, -1]),
        # Padding looks at nothing.
        ([1, IMAGE, 2, 0, 0], [0, 0, 0, -1, -1], [-1, 0, 0, -1, -1]),
    ],
)
def test_each_token_looks_at_the_latest_image_of_its_document(student, tokens, segments, expected):
    looks = student(LATEST, tokens=torch.tensor([tokens]), segments=torch.tensor([segments]), image_token=IMAGE)
    assert looks.tolist() == [expected]


@pytest.mark.exercise("4.3")
def test_rows_do_not_know_of_each_other(student):
    tokens = torch.randint(5, 10, (6, 12))
    segments = torch.randint(0, 3, (6, 12)).sort(dim=1).values
    together = student(LATEST, tokens=tokens, segments=segments, image_token=IMAGE)
    alone = [
        student(LATEST, tokens=tokens[k : k + 1], segments=segments[k : k + 1], image_token=IMAGE) for k in range(6)
    ]
    assert torch.equal(together, torch.cat(alone))


# ── 4.6: the surprise at what is asked ────────────────────────────────────────────────────────────────────────────────

TEXT_LOSS = "model.flamingo:text_loss"


def loss_arguments():
    asked = torch.tensor([[False, True, False, True, True], [False, False, True, False, False]])
    return {"logits": torch.randn(2, 5, 7), "tokens": torch.randint(0, 7, (2, 5)), "asked": asked}


@pytest.mark.exercise("4.6")
def test_the_loss_is_the_mean_surprise_at_what_is_asked(student):
    arguments = loss_arguments()
    chances = arguments["logits"].double().log_softmax(-1)
    places = [(0, 1), (0, 3), (0, 4), (1, 2)]
    surprises = [-chances[row, place - 1, arguments["tokens"][row, place]] for row, place in places]
    assert student(TEXT_LOSS, **arguments).item() == pytest.approx(sum(surprises).item() / 4, rel=1e-5)


@pytest.mark.exercise("4.6")
def test_only_what_is_asked_pulls(student):
    arguments = loss_arguments()
    _, gradients = student(TEXT_LOSS, upstream=torch.tensor(1.0), **arguments)
    expected = torch.zeros(2, 5, 7)
    for row, place in ((0, 1), (0, 3), (0, 4), (1, 2)):
        truth = F.one_hot(arguments["tokens"][row, place], 7)
        expected[row, place - 1] = (arguments["logits"][row, place - 1].softmax(-1) - truth) / 4
    close(gradients["logits"], expected)
