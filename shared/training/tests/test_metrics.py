"""What the log contains, and how it is read."""

import pytest
import torch
from torch import nn

from shared.training import Batches, RunOptions, TrainingConfig, curve_from_history, read_metrics, train
from shared.training.memory import peak_memory


def test_a_curve_from_a_log():
    history = [{"step": 5, "loss": 2.0}, {"step": 6, "evaluation/error": 0.5}, {"step": 10, "loss": None}]
    assert curve_from_history(history, "loss") == ([5], [2.0])
    with pytest.raises(ValueError, match="'accuracy'; there are evaluation/error, loss, step"):
        curve_from_history(history, "accuracy")


def test_the_log_has_what_is_needed_to_watch_a_long_run(tmp_path):
    batches = Batches(torch.ones(8, 2), batch_size=4, seed=0)
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    train(
        nn.Linear(2, 1),
        batches,
        loss,
        TrainingConfig(4, 0.1, log_every=2),
        run=RunOptions(folder=tmp_path),
    )
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert line.keys() == {"step", "loss", "gradient_norm", "learning_rate", "seconds", "memory_mb"}
        assert 20 < line["memory_mb"] < 20_000 and line["seconds"] > 0
    assert lines[0]["memory_mb"] <= lines[1]["memory_mb"]  # the most so far


@pytest.mark.parametrize("damage", [b"", b'{"step": 2, "lo', b"\xff\xfe\x00", b"\x00" * 30])
def test_only_a_damaged_line_is_lost(tmp_path, capsys, damage):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(path)] == [1, 3]
    assert capsys.readouterr().err == f"warning: line 2 of {path} is damaged and left out\n"


def test_memory_is_the_peak():
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(25_000_000)
    assert peak_memory(torch.device("cpu")) >= before and peak_memory(torch.device("cpu")) > block.nbytes
    del block
    after = peak_memory(torch.device("cpu"))
    assert after >= 100_000_000 and after == peak_memory(torch.device("cpu"))
