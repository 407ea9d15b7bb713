"""Evaluating one set of weights under several rotary scalings, position by position."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from data.toybox.documents import document_at
from lessons.lesson_00_foundations.decoder.model.evaluation import encode_documents
from lessons.lesson_00_foundations.decoder.model.toy_decoder import CONTEXT_LENGTH, load_language_model
from lessons.lesson_03_blip2.model import OPT, opt_config
from lessons.lesson_07_recipes.model.gemma import Gemma, gemma2_config
from lessons.lesson_07_recipes.model.long_context import (
    cross_entropy_by_length,
    cross_entropy_by_position,
    published_scalings,
    with_rotary_scaling,
)
from shared.testing import redraw_weights
from shared.transformer import Decoder, DecoderConfig, LinearScaling, YarnScaling

CONFIG = DecoderConfig(23, 16, 2, 2, 1, 12, rotary_base=50.0, tied=True)


@pytest.fixture
def decoder():
    return redraw_weights(Decoder(CONFIG))


@pytest.mark.parametrize("name", published_scalings(4.0, 8))
def test_a_scaled_decoder_equals_one_that_is_built_with_the_scaling(name, decoder):
    scaling, token_ids = published_scalings(4.0, 8)[name], torch.randint(23, (2, 32))
    scaled, fresh = with_rotary_scaling(decoder, scaling), Decoder(replace(CONFIG, rotary_scaling=scaling))
    fresh.load_state_dict(decoder.state_dict())
    assert torch.equal(scaled(token_ids), fresh(token_ids))
    assert torch.allclose(scaled(token_ids), decoder(token_ids)) == (name == "none")


def test_the_weights_are_shared_and_the_decoder_stays_as_it_is(decoder):
    token_ids = torch.randint(23, (2, 32))
    before = decoder(token_ids)
    scaled = with_rotary_scaling(decoder.train(), YarnScaling(4.0, 8))
    assert scaled.training and decoder.config.rotary_scaling is None
    for name, parameter in decoder.named_parameters():
        assert scaled.get_parameter(name) is parameter
    assert scaled.output.weight is scaled.embedding.weight
    assert torch.equal(decoder(token_ids), before)


def test_a_gemma_keeps_its_class_and_its_windows():
    sizes = {"vocab_size": 23, "width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "mlp_dim": 12, "head_dim": 8}
    gemma = redraw_weights(Gemma(gemma2_config(**sizes, window=3)))
    scaled = with_rotary_scaling(gemma, LinearScaling(2.0))
    assert type(scaled) is Gemma and scaled.config == replace(gemma.config, rotary_scaling=LinearScaling(2.0))
    assert scaled(torch.randint(23, (1, 9))).isfinite().all()


def test_learned_positions_cannot_be_scaled():
    with pytest.raises(ValueError, match="learned positions, which no scaling extends"):
        with_rotary_scaling(OPT(opt_config(23, 16, 1, 2, 12, 32)), LinearScaling(2.0))


def test_the_cross_entropy_of_every_position(decoder):
    token_ids = torch.randint(23, (7, 10))
    losses = cross_entropy_by_position(decoder, token_ids, batch=3)
    assert losses.shape == (9,)
    for position in range(9):
        expected = F.cross_entropy(decoder(token_ids)[:, position], token_ids[:, position + 1])
        assert losses[position].item() == pytest.approx(expected.item(), rel=1e-5)


def test_lengths_are_counted_in_multiples_of_the_trained_one(decoder):
    token_ids = torch.randint(23, (3, 19))
    scalings = {"none": None, "interpolated": LinearScaling(3.0)}
    result = cross_entropy_by_length(decoder, token_ids, 6, scalings)
    assert result.keys() == scalings.keys() and all(len(values) == 3 for values in result.values())
    for name, scaling in scalings.items():
        losses = cross_entropy_by_position(with_rotary_scaling(decoder, scaling), token_ids)
        # Entry t of `losses` is token t + 1: tokens 1 to 5, 6 to 11, and 12 to 17.
        expected = [losses[:5].mean(), losses[5:11].mean(), losses[11:17].mean()]
        assert result[name] == pytest.approx([value.item() for value in expected], rel=1e-5)
    with pytest.raises(ValueError, match="rows of 19 tokens are shorter than the trained length of 20"):
        cross_entropy_by_length(decoder, token_ids, 20, scalings)


def test_scaling_helps_the_shipped_decoder_beyond_its_trained_length():
    model, tokenizer = load_language_model()
    documents = encode_documents(tokenizer, [document_at("validation", 0, number) for number in range(120)])
    token_ids = torch.tensor([token_id for document in documents for token_id in document])
    rows = token_ids[: len(token_ids) // (4 * CONTEXT_LENGTH) * 4 * CONTEXT_LENGTH].view(-1, 4 * CONTEXT_LENGTH)
    scalings = {"none": None, "YaRN": YarnScaling(4.0, CONTEXT_LENGTH)}
    result = cross_entropy_by_length(model, rows, CONTEXT_LENGTH, scalings)
    assert result["none"][3] > result["none"][0] + 1.0
    assert result["YaRN"][3] < result["none"][3] - 0.3
