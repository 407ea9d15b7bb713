"""The pure-Python decoder equals the shared PyTorch decoder, and attends to no later token."""

from random import Random

import torch

from shared.stdlib.creation import normal
from shared.stdlib.decoder import Decoder as StdlibDecoder
from shared.torch_conversion import to_torch
from shared.transformer import Decoder, DecoderConfig

ROWS = [[3, 1, 4, 1, 5], [2, 7, 0, 6, 8]]


def redrawn_decoder() -> StdlibDecoder:
    random = Random(0)
    decoder = StdlibDecoder(9, 12, 2, 3, 14, random)
    for parameter in decoder.parameters().values():
        parameter.data = normal(parameter.shape, 0.5, random).data
    return decoder


def test_equals_the_pytorch_decoder():
    decoder = redrawn_decoder()
    config = DecoderConfig(9, 12, 2, 3, 3, 14, rotary_base=10_000.0)
    expected = Decoder(config).double()
    expected.load_state_dict({name: to_torch(parameter) for name, parameter in decoder.parameters().items()})
    logits = decoder(decoder.embed(ROWS))
    # Rotary angles are float32 in PyTorch and float64 in Python.
    torch.testing.assert_close(to_torch(logits), expected(torch.tensor(ROWS)).detach(), atol=1e-5, rtol=1e-5)


def test_no_token_attends_to_later_tokens():
    decoder = redrawn_decoder()
    changed = [[*row[:3], row[3] + 1, row[4]] for row in ROWS]
    before, after = (to_torch(decoder(decoder.embed(rows))) for rows in (ROWS, changed))
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().min() > 1e-9
