"""Trains one model in several processes: each takes its rows of every batch, and together they take one step.

DDP (arXiv:2006.15704) keeps a full copy of model, gradients and optimizer in each process and averages the gradients.
FSDP (arXiv:2304.11277; here its second version, `fully_shard`) gives each process a shard of every tensor and gathers a
block's weights only while that block computes: more communication, and 1/N of the memory.
Without torchrun there is one process, and everything here is a plain call.
"""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.utils.checkpoint import checkpoint

from shared.distributed import world_size
from shared.training.config import TrainingConfig
from shared.training.dtensor import full_tensor
from shared.training.loss_sum import LossSum

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy


class Stopwatch:
    """Measure the seconds within `with stopwatch:`, minus those between `pause` and `resume`."""

    def __init__(self) -> None:
        self.seconds, self._open = 0.0, False
        self._started: float | None = None

    def __enter__(self) -> "Stopwatch":
        self._open = True
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()
        self._open = False

    def resume(self) -> None:
        """Go on measuring, if within the context."""
        if self._open and self._started is None:
            self._started = time.perf_counter()

    def pause(self) -> None:
        """Stop measuring."""
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._started = None

    def pop(self) -> float:
        """Return the seconds and start again from zero."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class SingleCall(nn.Module):
    """Wrap a model so that whatever a function does with it happens within one `forward`.

    DDP and FSDP act when a module is *called*. A loss, however, may call `model.features`, or two parts of the model
    one after the other; within this wrapper that is one call.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable, *arguments: Any) -> Any:
        return function(self.model, *arguments)


class Parallel:
    """Prepare a model, and its average if there is one, to be trained by all processes together.

    model  what optimizers, the average and checkpoints use: the given model, on `device`. With FSDP it is a copy whose
           parameters are shards (DTensor); the given model is empty until `gather_models` fills it again.
    work   measures the time that this process works alone
    """

    def __init__(self, model: nn.Module, average: nn.Module | None, config: TrainingConfig, device: torch.device):
        self.alone, self.sharded = world_size() == 1, world_size() > 1 and config.parallel == "fsdp"
        self.device, self.work = device, Stopwatch()
        self.bfloat16 = config.precision == "bfloat16"
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)
        self.original_model, self.average = model, average
        if not self.alone:
            for module in filter(None, (model, average)):
                _broadcast_from_main(module)
        if self.sharded:
            self.model = _move_parameters_to_copy(model)
            modules = filter(None, (self.model, average))
            self.wrapped: dict[nn.Module, Any] = {module: self._shard(module) for module in modules}
        else:
            self.model, self.average = model.to(device), average and average.to(device)
            self.compiled = cast(nn.Module, torch.compile(self.model)) if config.compile else self.model
        self.begin_stage()

    def begin_stage(self) -> None:
        """Rebuild DDP, which prepares for the parameters that train when it is built."""
        if not self.alone and not self.sharded:
            wrapped = SingleCall(self.compiled)
            # Not every batch uses every part (a text without an image skips the image encoder), so DDP must search for
            # unused parameters. It warns when it finds none; with this one, it always finds one.
            wrapped.never_used = nn.Parameter(torch.zeros((), device=self.device))
            self.replicated = DistributedDataParallel(
                wrapped, init_sync=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def loss(self, loss: Callable, batch: Any, *, last: bool) -> Any:
        """Return `loss(model, batch)` of this process's rows; exchange gradients only after the step's `last` batch."""
        with self.work, self.autocast:
            if self.alone:
                return loss(self.compiled, batch)
            if self.sharded:
                self.wrapped[self.model].set_requires_gradient_sync(last)
                return self.wrapped[self.model](loss, batch)
            with contextlib.nullcontext() if last else self.replicated.no_sync():
                return self.replicated(loss, batch)

    def evaluate(self, evaluate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        """Return `evaluate(model)`, of the average if there is one."""
        model = self.model if self.average is None else self.average
        if not self.sharded:
            return evaluate(model)
        with self.autocast:  # the weights may have been gathered in bfloat16
            values = self.wrapped[model](evaluate)
        self.wrapped[model].reshard()
        return values

    def gather_models(self) -> tuple[nn.Module, nn.Module | None]:
        """Return the trained model and its average, both complete, on `device` and in evaluation mode."""
        if not self.sharded:
            return self.model.eval(), self.average
        model = _gather_parameters(self.model, self.original_model)
        average = None if self.average is None else _gather_parameters(self.average, copy.deepcopy(model))
        return model.to(self.device).eval(), average and average.to(self.device).eval().requires_grad_(False)

    def _shard(self, model: nn.Module) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # here, because a single process need not load it

        mesh = init_device_mesh(self.device.type, (world_size(),))
        # Block by block, so that only a few blocks are complete at a time; the rest belongs to the wrapper.
        for block in transformer_blocks(model):
            fully_shard(block, mesh=mesh, mp_policy=fsdp_precision(self.bfloat16, self.device))
        wrapped = SingleCall(model)
        fully_shard(wrapped, mesh=mesh, mp_policy=fsdp_precision(False, self.device))
        for module in (wrapped, *transformer_blocks(model)):
            # Around FSDP's own hook, in which a process waits for the weights of the others.
            module.register_forward_pre_hook(lambda *_: self.work.pause(), prepend=True)
            module.register_forward_pre_hook(lambda *_: self.work.resume())
        return wrapped


def fsdp_precision(bfloat16: bool, device: torch.device) -> "MixedPrecisionPolicy":
    """Return the precision in which FSDP sends weights and gradients; autocast decides the precision of computation.

    Blocks' weights are sent to GPUs in bfloat16, which halves the traffic. Each process keeps its shard, and sums
    gradients, in float32. (A CPU gains nothing, and its layer norm accepts no bfloat16 weights.) Inputs are never cast:
    positions and rotary angles need more precision than bfloat16 has.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    weights = torch.bfloat16 if bfloat16 and device.type == "cuda" else None
    return MixedPrecisionPolicy(param_dtype=weights, reduce_dtype=torch.float32, cast_forward_inputs=False)


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the members of every ModuleList with the name `blocks`, which all models of the course use."""
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] == "blocks"
    ]
    return [block for blocks in lists for block in blocks]


@contextlib.contextmanager
def prepare_blocks(model: nn.Module, *, recompute: bool, compile: bool) -> Iterator[None]:
    """Within this context, recompute activations block by block (arXiv:1604.06174), or compile each block.

    Only `forward` is replaced, so that FSDP's hooks stay outside of it and no parameter name changes.
    Raises ValueError when the model has no blocks.
    """
    if not (recompute or compile):
        yield
        return
    blocks = transformer_blocks(model)
    if not blocks:
        raise ValueError("recompute works block by block, and this model has no ModuleList called `blocks`")
    for block in blocks:
        if compile:
            block.forward = torch.compile(block.forward)
        if recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class's own method is visible again


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm over all gradients together; for shards, over the full gradients."""
    return full_tensor(get_total_norm(gradients))


def mean_loss_over_processes(losses: list[LossSum]) -> list[LossSum]:
    """Return each loss with its sum and its count averaged over all processes: in each the same, for equal decisions.

    Their ratio is the mean over the terms of all processes.
    """
    if world_size() == 1:
        return losses
    stacked = torch.tensor([[float(each.total), float(each.terms)] for each in losses], dtype=torch.float64)
    distributed.all_reduce(stacked)
    return [LossSum(total, count) for total, count in stacked / world_size()]


def any_process(request: str | None) -> str | None:
    """Return the request of this process, or a description of another process's request, if there is one."""
    if world_size() == 1:
        return request
    requests = torch.tensor(int(request is not None))
    distributed.all_reduce(requests)
    return (request or "a signal to another process") if requests else None


def _broadcast_from_main(module: nn.Module) -> None:
    """Overwrite the initial weights of every process with those of the main process."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor, 0)


def _move_parameters_to_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` that takes over the memory of its parameters, and leave those of `model` empty."""
    moved = {id(parameter): nn.Parameter(parameter.data, parameter.requires_grad) for parameter in model.parameters()}
    moved_model = copy.deepcopy(model, moved)
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
    return moved_model


def _gather_parameters(sharded: nn.Module, target: nn.Module) -> nn.Module:
    """Fill `target` with the full parameters of `sharded` and return it."""
    with torch.no_grad():
        for parameter, shard in zip(target.parameters(), sharded.parameters(), strict=True):
            parameter.data = full_tensor(shard.detach())
        for buffer, source in zip(target.buffers(), sharded.buffers(), strict=True):
            buffer.copy_(source)
    return target
