"""The reference and `model/` agree: tokens of frames, guidance, constrained decoding, and the loss of DPO."""

import math
from random import Random

import pytest
import torch

from lessons.lesson_12_emu3 import reference
from lessons.lesson_12_emu3.model.frames import (
    END,
    END_OF_FRAME,
    END_OF_LINE,
    EOS,
    codes_of_tokens,
    frame_token_ids,
    token_kinds,
)
from lessons.lesson_12_emu3.model.generation import guide_logits
from shared.finetuning.preference import dpo_loss


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 1, 2), (2, 4, 1)])
def test_the_tokens_of_frames_are_one(shape):
    codes = torch.randint(2, shape)
    tokens = frame_token_ids(codes, reference.END_OF_LINE, reference.END_OF_FRAME)
    assert reference.frame_tokens(codes.tolist()) == tokens.tolist()
    assert torch.equal(codes_of_tokens(tokens[None], *shape)[0], codes)


def test_the_kinds_of_tokens_are_one():
    kinds = {
        END_OF_LINE: reference.END_OF_LINE,
        END_OF_FRAME: reference.END_OF_FRAME,
        END: reference.END,
        EOS: reference.EOS,
    }
    for frames, rows, columns in [(1, 2, 3), (3, 2, 1)]:
        expected = [kinds.get(kind) for kind in token_kinds(frames, rows, columns).tolist()]
        assert reference.token_kinds(frames, rows, columns) == expected


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_guided_logits_are_one(scale):
    conditional, unconditional = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    expected = guide_logits(conditional, unconditional, scale)
    for row in range(5):
        plain = reference.guide(conditional[row].tolist(), unconditional[row].tolist(), scale)
        assert plain == pytest.approx(expected[row].tolist(), abs=1e-12)


def test_the_loss_of_dpo_is_one():
    values = torch.randn(4, 20).double()
    for row in values.T:
        expected, _ = dpo_loss(*row[:, None], 0.7)
        assert reference.dpo_loss(*row.tolist(), 0.7) == pytest.approx(expected.item())


def test_the_step_of_dpo_follows_the_gradient_of_its_loss():
    """One step of the reference, against the derivative of the mean loss of all pairs by autograd."""
    random, beta, images = Random(3), 0.6, 5
    values = torch.tensor([random.random() + 0.1 for _ in range(images)]).double()
    start, rewards = values / values.sum(), torch.randn(images).double()
    gains = torch.zeros(images, dtype=torch.float64, requires_grad=True)
    loss = torch.zeros((), dtype=torch.float64)
    for one in range(images):
        for other in range(images):
            better = torch.sigmoid(rewards[one] - rewards[other])
            pair = [start.log()[image] + gains[image] for image in (one, other)]
            constants = [start.log()[image] for image in (one, other)]
            for chance, order in ((better, (0, 1)), (1 - better, (1, 0))):
                arguments = [values[place][None] for values in (pair, constants) for place in order]
                loss = loss + start[one] * start[other] * chance * dpo_loss(*arguments, beta)[0]
    loss.backward()
    rate = 0.3
    # The reference's step is rate / β times the difference that the derivative has with 2β · probability.
    step = -rate / beta * gains.grad / (2 * beta * start)
    expected = (start.log() + step).softmax(dim=0)
    actual = reference.optimize_preferences(start.tolist(), rewards.tolist(), beta, 1, rate)
    assert actual == pytest.approx(expected.tolist(), abs=1e-12)
    assert math.dist(actual, start.tolist()) > 1e-2
