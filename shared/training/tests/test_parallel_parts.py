"""The parts of parallel.py that a process alone uses too, or that show themselves without a second one."""

import pytest
import torch
from torch import nn

from shared.training import Batches, TrainingConfig, train
from shared.training.parallel import blocks_of, blocks_prepared, precision_of_shards
from shared.transformer import Decoder, DecoderConfig


def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(7, 8, 2, 2, 1, 12))


def predict(model, tokens):
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def test_recomputing_changes_no_bit_and_runs_every_block_twice():
    calls, weights = {}, {}
    for recompute in (False, True):
        model = decoder()
        calls[recompute] = 0

        def count(*_, recompute=recompute):
            calls[recompute] += 1

        for block in model.blocks:
            block.attention.register_forward_hook(count)  # inside the block: what is run again
        batches = Batches(torch.randint(7, (8, 5), generator=torch.Generator().manual_seed(1)), batch_size=4, seed=0)
        weights[recompute] = train(model, batches, predict, TrainingConfig(3, 1e-2, recompute=recompute)).model
        assert all("forward" not in vars(block) for block in model.blocks), "it is as it was"
    assert calls == {False: 6, True: 12}
    for one, other in zip(weights[False].parameters(), weights[True].parameters(), strict=True):
        assert torch.equal(one, other)


def test_recompute_needs_blocks():
    model = nn.Linear(2, 2)
    with (
        pytest.raises(ValueError, match="no ModuleList called `blocks`"),
        blocks_prepared(model, recompute=True, compile=False),
    ):
        pass


def test_blocks_are_found_wherever_they_stand():
    model = nn.ModuleDict({"encoder": decoder(), "decoder": decoder(), "heads": nn.ModuleList([nn.Linear(2, 2)])})
    assert blocks_of(model) == [*model["encoder"].blocks, *model["decoder"].blocks]


def test_weights_travel_in_bfloat16_to_gpus_only_and_inputs_are_never_cast():
    cpu, cuda = (precision_of_shards(True, torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu.param_dtype, cuda.param_dtype) == (None, torch.bfloat16)
    assert cpu.reduce_dtype == cuda.reduce_dtype == torch.float32
    assert precision_of_shards(False, torch.device("cuda")).param_dtype is None
    assert not cuda.cast_forward_inputs
