"""The benchmark of training speed is for machines with a GPU; these tests run it with tiny models."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import throughput
from shared.training import Batches


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it measures large models")
def test_it_measures_both_sides_of_every_model():
    rows = throughput.measure(compile_options=(False,))
    assert [row.unit for row in rows] == ["tokens/s"] * len(throughput.TINY)
    for row, case in zip(rows, throughput.TINY, strict=True):
        assert row.name == f"{case.name}, bfloat16"
        assert row.ratio == pytest.approx(row.course / row.baseline) and row.course > 0


@pytest.mark.parametrize("case", throughput.TINY, ids=("decoder", "vit"))
def test_operations_equal_pytorchs_count(case, monkeypatch):
    monkeypatch.setenv("ATTENTION_BACKEND", "naive")  # plain products, which its counter supports
    model = case.constructors["course"]()
    batch = Batches(*case.arrays(torch.device("cpu")), batch_size=case.batch_size, seed=0)(0)
    with FlopCounterMode(display=False) as counter:
        case.loss(model, batch)
    # Plain products compute pairs that causal attention skips.
    skipped = 2 * case.depth * case.batch_size * case.tokens**2 * case.width if case.causal else 0
    assert throughput.forward_flops(case, model, batch) == counter.get_total_flops() - skipped


def test_both_sides_have_as_many_weights():
    for case in (*throughput.TINY, *throughput.LARGE):
        with torch.device("meta"):
            course, baseline = (
                sum(parameter.numel() for parameter in case.constructors[side]().parameters())
                for side in ("course", "transformers")
            )
        assert course == baseline, case.name
