"""The benchmark of generation runs on a tiny model, and its perplexity is that of one pass over the text."""

import math

import pytest
import torch
from torch.nn import functional as F

from benchmarks import generation
from shared.transformer import Decoder, DecoderConfig

TINY = generation.Case("tiny", DecoderConfig(31, 32, 1, 2, 1, 64), new_tokens=3, rounds=1)


def test_it_measures_both_kinds_of_weights():
    rows = generation.measure((TINY,), texts=2)
    assert [row.unit for row in rows] == ["tokens/s", "tokens/s", ""]
    assert all(row.course > 0 and row.ratio for row in rows)
    assert rows[-1].ratio == pytest.approx(1, abs=0.05), "eight-bit weights keep the perplexity"


def test_perplexity_in_pieces_equals_one_pass():
    decoder, text = Decoder(TINY.config), torch.randint(31, (37,))
    with torch.no_grad():
        nats = F.cross_entropy(decoder(text[None])[0, :-1], text[1:]).item()
    assert generation.perplexity(decoder, [text]) == pytest.approx(math.exp(nats), rel=1e-4)
