import pytest
import torch
from safetensors.torch import load_file

from shared.distributed import all_gather_with_gradients, all_reduce_mean, ring_exchange
from shared.distributed.launch import launch_function
from shared.distributed.tests import collective_job as job


def expected_values(name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return each process's expected result of a collective, computed in one process with plain operations."""
    size = len(inputs)
    match name:
        case "gather":
            return [torch.cat(inputs)] * size
        case "next" | "second next" | "previous":
            steps = {"next": 1, "second next": 2, "previous": -1}[name]
            return [inputs[(process - steps) % size] for process in range(size)]
        case "mean":
            return [torch.stack(inputs).mean(0)] * size
        case "chain":
            return [
                torch.cat([x.T for x in inputs])
            ] * size  # equal in all processes, so neither ring nor mean changes it


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collectives")
    result = launch_function(request.param, job.main, folder)
    assert result.returncode == 0, result.stderr
    return [load_file(folder / f"{process}.safetensors") for process in range(request.param)]


def test_each_process_has_its_rank(results):
    assert [result["place"].tolist() for result in results] == [
        [process, len(results), int(process == 0)] for process in range(len(results))
    ]


@pytest.mark.parametrize("name", job.COLLECTIVES)
def test_values_and_gradients_equal_those_of_one_process(results, name):
    inputs = [job.input_of(process).requires_grad_() for process in range(len(results))]
    expected = expected_values(name, inputs)
    sum(job.loss_of(values, process) for process, values in enumerate(expected)).backward()
    for result, values, x in zip(results, expected, inputs, strict=True):
        torch.testing.assert_close(result[f"{name}/values"], values.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(result[f"{name}/gradient"], x.grad, rtol=0, atol=1e-12)


def test_integers_are_gathered(results):
    assert all(result["integers"].tolist() == list(range(len(results))) for result in results)


def test_in_a_single_process_every_collective_returns_its_input():
    x = torch.randn(3, 2)
    assert all(collective(x) is x for collective in (all_gather_with_gradients, all_reduce_mean, ring_exchange))
