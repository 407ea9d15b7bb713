"""The benchmark of training speed is for machines with a GPU; here it runs with tiny models."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import throughput
from shared.training import Batches


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it measures large models")
def test_it_measures_both_sides_of_every_model():
    rows = throughput.measure(compiled=(False,))
    assert [row["unit"] for row in rows] == ["tokens/s"] * len(throughput.TINY)
    for row, case in zip(rows, throughput.TINY, strict=True):
        assert row["name"] == f"{case.name}, bfloat16"
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"]) and row["ours"] > 0


@pytest.mark.parametrize("case", throughput.TINY, ids=("decoder", "vit"))
def test_operations_are_those_that_pytorch_counts(case, monkeypatch):
    monkeypatch.setenv("ATTENTION_BACKEND", "naive")  # plain products, which its counter knows
    model = case.makers["ours"]()
    batch = Batches(*case.arrays(torch.device("cpu")), batch_size=case.batch, seed=0)(0)
    with FlopCounterMode(display=False) as counter:
        case.loss(model, batch)
    # Plain products compute what causal attention then leaves out.
    left_out = 2 * case.layers * case.batch * case.tokens**2 * case.width if case.causal else 0
    assert throughput.forward_flops(case, model, batch) == counter.get_total_flops() - left_out


def test_both_sides_have_as_many_weights():
    for case in (*throughput.TINY, *throughput.LARGE):
        with torch.device("meta"):
            ours, theirs = (
                sum(parameter.numel() for parameter in case.makers[who]().parameters())
                for who in ("ours", "transformers")
            )
        assert ours == theirs, case.name
