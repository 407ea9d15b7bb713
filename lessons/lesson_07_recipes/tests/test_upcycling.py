"""An upcycled decoder equals the dense one until it is trained, and then its experts differ."""

import pytest
import torch

from lessons.lesson_00_foundations.decoder.model import LanguageModel
from lessons.lesson_07_recipes.model.experts_arms import count_parameters, loss_and_loads
from lessons.lesson_07_recipes.model.upcycling import upcycle
from shared.testing import redraw_weights
from shared.transformer import DecoderConfig

CONFIG = DecoderConfig(23, 16, 2, 2, 1, 12, rotary_base=50.0, tied=True)


@pytest.fixture
def dense():
    return redraw_weights(LanguageModel(CONFIG)).double()


@pytest.mark.parametrize(("experts", "chosen"), [(4, 2), (3, 1), (3, 3)])
def test_the_logits_are_those_of_the_dense_decoder(dense, experts, chosen):
    sparse, token_ids = upcycle(dense, experts, chosen).double(), torch.randint(23, (2, 9))
    torch.testing.assert_close(sparse(token_ids), dense(token_ids), atol=1e-6, rtol=1e-6)
    counts, size = count_parameters(sparse), 3 * 12 * 16 * 2
    assert counts.total - counts.active == (experts - chosen) * size
    assert sparse.output.weight is sparse.embedding.weight


def test_experts_differ_after_one_step(dense):
    sparse, token_ids = upcycle(dense.float(), 4, 2), torch.randint(23, (4, 9))
    loss, _ = loss_and_loads(sparse, token_ids, torch.zeros_like(token_ids))
    loss.backward()
    gate = sparse.blocks[0].mlp.experts.gate
    assert torch.equal(gate[0], gate[1]) and not torch.equal(gate.grad[0], gate.grad[1])
    assert sparse.blocks[0].mlp.router.weight.grad is not None


def test_an_mlp_without_a_gate_is_an_error():
    decoder = LanguageModel(DecoderConfig(23, 16, 1, 2, 2, 12, activation="relu"))
    with pytest.raises(ValueError, match="activation is 'relu'"):
        upcycle(decoder, 2, 1)
