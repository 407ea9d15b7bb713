"""The parts of parallel.py that can be tested in a single process."""

import pytest
import torch
from torch import nn

from shared.training import Batches, TrainingConfig, train
from shared.training.parallel import fsdp_precision, prepare_blocks, transformer_blocks
from shared.transformer import Decoder, DecoderConfig


def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(7, 8, 2, 2, 1, 12))


def next_token_loss(model, token_ids):
    return nn.functional.cross_entropy(model(token_ids[:, :-1]).flatten(0, 1), token_ids[:, 1:].flatten())


def test_recomputation_is_bit_identical_and_runs_every_block_twice():
    calls, weights = {}, {}
    for recompute in (False, True):
        model = decoder()
        calls[recompute] = 0

        def count(*_, recompute=recompute):
            calls[recompute] += 1

        for block in model.blocks:
            block.attention.register_forward_hook(count)  # inside the block, which is run again
        batches = Batches(torch.randint(7, (8, 5), generator=torch.Generator().manual_seed(1)), batch_size=4, seed=0)
        weights[recompute] = train(model, batches, next_token_loss, TrainingConfig(3, 1e-2, recompute=recompute)).model
        assert all("forward" not in vars(block) for block in model.blocks), "forward is restored"
    assert calls == {False: 6, True: 12}
    for one, other in zip(weights[False].parameters(), weights[True].parameters(), strict=True):
        assert torch.equal(one, other)


def test_recompute_requires_blocks():
    model = nn.Linear(2, 2)
    with (
        pytest.raises(ValueError, match="no ModuleList called `blocks`"),
        prepare_blocks(model, recompute=True, compile=False),
    ):
        pass


def test_blocks_are_found_at_any_depth():
    model = nn.ModuleDict({"encoder": decoder(), "decoder": decoder(), "heads": nn.ModuleList([nn.Linear(2, 2)])})
    assert transformer_blocks(model) == [*model["encoder"].blocks, *model["decoder"].blocks]


def test_weights_are_sent_in_bfloat16_to_gpus_only_and_inputs_are_never_cast():
    cpu, cuda = (fsdp_precision(True, torch.device(name)) for name in ("cpu", "cuda"))
    assert (cpu.param_dtype, cuda.param_dtype) == (None, torch.bfloat16)
    assert cpu.reduce_dtype == cuda.reduce_dtype == torch.float32
    assert fsdp_precision(False, torch.device("cuda")).param_dtype is None
    assert not cuda.cast_forward_inputs
