import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.distributed.launch import launch_function
from shared.training.tests import parallel_cases
from shared.training.tests import parallel_job as job

# Four processes on two cores are slow and test no further feature, so they run only two cases.
RUNS = [(2, name) for name in parallel_cases.CASES] + [(4, "vit"), (4, "decoder")]


@cache
def single_process_result(name: str):
    return job.run(name, "ddp")


@pytest.fixture(scope="module")
def distributed_result(tmp_path_factory):
    """Return the log and the weights of a case, by number of processes, name and kind of parallelism."""

    @cache
    def folder_of(processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"{processes}-processes")
        names = [name for size, name in RUNS if size == processes]
        result = launch_function(processes, job.main, folder, "train", names)
        assert result.returncode == 0, result.stderr
        assert "warning" not in result.stderr.lower(), result.stderr
        assert result.stderr.count("training: step 0/") == 2 * len(names), "only the main process displays progress"
        return folder

    def result_of(processes: int, name: str, parallel: str):
        path = folder_of(processes) / f"{name} {parallel}"
        return json.loads(path.with_suffix(".json").read_text()), load_file(path.with_suffix(".safetensors"))

    return result_of


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize(("processes", "name"), RUNS)
def test_several_processes_reach_the_losses_of_one(distributed_result, processes, name, parallel):
    history, weights = distributed_result(processes, name, parallel)
    result = single_process_result(name)
    assert len(history) == len(result.history) == result.steps
    # bfloat16 has an 8-bit mantissa: another order of summation shows in the third digit.
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if name == "bfloat16" else {"rtol": 0, "atol": 1e-5}
    for key in ("loss", "accuracy", "evaluation/loss", "gradient_norm"):
        expected = torch.tensor([line[key] for line in result.history if key in line])
        values = torch.tensor([line[key] for line in history if key in line])
        # A looser bound for the norm, because Muon's start magnifies rounding; it still detects the norm of a shard.
        loose = {"rtol": 1e-3, "atol": 1e-4} if key == "gradient_norm" and name != "bfloat16" else tolerance
        torch.testing.assert_close(values, expected, **loose, msg=lambda message, key=key: f"{key}: {message}")
    assert [line["learning_rate"] for line in history] == [line["learning_rate"] for line in result.history]
    if name != "bfloat16":
        # A key's bias adds the same to all scores of a row, so its gradient is rounding noise, which Adam magnifies.
        expected = {key: value for key, value in job.named_weights(result).items() if not key.endswith("key.bias")}
        torch.testing.assert_close({key: weights[key] for key in expected}, expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_gradients_are_exchanged_once_per_step_whatever_the_accumulation(tmp_path, parallel):
    result = launch_function(2, job.main, tmp_path, "act", [f"traffic/{parallel}"])
    assert result.returncode == 0, result.stderr
    for process in (0, 1):
        one, three = json.loads((tmp_path / "traffic" / parallel / f"{process}.json").read_text()).values()
        # In four steps: gradients, the loss, requests to stop.
        assert one["all_reduce"] == three["all_reduce"] >= 3 * 4
        if parallel == "ddp":
            assert one == three
        else:  # weights are gathered for every batch
            assert three["all_gather"] > one["all_gather"] and one.keys() == three.keys()


def test_the_cases_are_not_trivial():
    for name in parallel_cases.CASES:
        losses = [line["loss"] for line in single_process_result(name).history]
        assert min(losses[-3:]) < losses[0], name
    norms = [line["gradient_norm"] for line in single_process_result("vit").history]
    assert sum(norm > parallel_cases.FULL["clip_norm"] for norm in norms) > 10, "clipping applies"
