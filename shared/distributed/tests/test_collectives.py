import pytest
import torch
from safetensors.torch import load_file

from shared.distributed import all_gather_with_gradients, all_reduce_mean, ring_exchange
from shared.distributed.launch import launch_function
from shared.distributed.tests import collective_job as job


def together(name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each process should hold after a collective, computed in one process with plain operations."""
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
            return [torch.cat([x.T for x in inputs])] * size  # all hold the same, so neither ring nor mean changes it


@pytest.fixture(scope="module", params=[2, 4])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("collectives")
    done = launch_function(request.param, job.main, folder)
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"{process}.safetensors") for process in range(request.param)]


def test_each_process_knows_who_it_is(results):
    assert [found["who"].tolist() for found in results] == [
        [process, len(results), int(process == 0)] for process in range(len(results))
    ]


@pytest.mark.parametrize("name", job.COLLECTIVES)
def test_values_and_gradients_are_those_of_one_process(results, name):
    inputs = [job.own_input(process).requires_grad_() for process in range(len(results))]
    wanted = together(name, inputs)
    sum(job.own_loss(values, process) for process, values in enumerate(wanted)).backward()
    for found, values, x in zip(results, wanted, inputs, strict=True):
        torch.testing.assert_close(found[f"{name}/values"], values.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(found[f"{name}/gradient"], x.grad, rtol=0, atol=1e-12)


def test_whole_numbers_are_gathered_too(results):
    assert all(found["integers"].tolist() == list(range(len(results))) for found in results)


def test_alone_every_collective_gives_back_what_it_got():
    x = torch.randn(3, 2)
    assert all(collective(x) is x for collective in (all_gather_with_gradients, all_reduce_mean, ring_exchange))
