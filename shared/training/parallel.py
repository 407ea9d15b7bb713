"""One model in several processes: each takes its rows of every batch, and together they make one step.

DDP (arXiv:2006.15704) keeps a whole copy of model, gradients and optimizer in each process and averages the gradients.
FSDP (arXiv:2304.11277; here its second version, `fully_shard`) gives each process one share of every tensor, and
gathers a block's weights only while that block is at work: slower over a thin wire, and 1/N of the memory.
Without torchrun there is one process, and everything here is a plain call.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.utils.checkpoint import checkpoint

from shared.distributed import world_size
from shared.training.dtensor import whole
from shared.training.slow_worker import Stopwatch

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy


class Door(nn.Module):
    """A model that is entered in one place only: whatever a function does with it happens in this one `forward`.

    DDP and FSDP act when a module is *called*. A loss, though, may ask a model for its `features`, or use two parts
    of it one after the other; behind a door all of that is one call.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, function: Callable, *arguments: Any) -> Any:
        return function(self.model, *arguments)


class Parallel:
    """A model, and its average where one is kept, made ready to be trained by all processes together.

    `model` is what optimizers, the average and checkpoints work on: the model that was given, on `device`. With FSDP it
    is a twin whose parameters are shares (DTensor), and the given one is empty until `finished` fills it again.
    `work` measures what this process does by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        average: nn.Module | None,
        *,
        mode: str,
        bfloat16: bool,
        compile: bool,
        device: torch.device,
    ):
        self.alone, self.sharded = world_size() == 1, world_size() > 1 and mode == "fsdp"
        self.device, self.compile, self.work = device, compile, Stopwatch()
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
        self.whole_model, self.average = model, average
        if not self.alone:
            for module in filter(None, (model, average)):
                _as_on_the_main_process(module)
        if self.sharded:
            self.model = _moved_out_of(model)
            self.doors = {module: self._shard(module, bfloat16) for module in filter(None, (self.model, average))}
        else:
            self.model, self.average = model.to(device), average and average.to(device)
            self.called = torch.compile(self.model) if compile else self.model
        self.begin_stage()

    def begin_stage(self) -> None:
        """Which parameters learn may have changed, and DDP prepares for those that learn when it is built."""
        if not self.alone and not self.sharded:
            door = Door(self.called)
            # Not every batch reaches every part (a text without a picture leaves the image encoder out), so DDP has to
            # look for what was not used. Where that never happens it warns of looking in vain; here it always finds one.
            door.never_used = nn.Parameter(torch.zeros((), device=self.device))
            self.replicated = DistributedDataParallel(
                door, init_sync=False, find_unused_parameters=True, gradient_as_bucket_view=True
            )

    def loss(self, loss: Callable, batch: Any, *, last: bool) -> Any:
        """`loss(model, batch)` of this process's rows; the gradients travel after the `last` batch of a step only."""
        with self.work, self.autocast:
            if self.alone:
                return loss(self.called, batch)
            if self.sharded:
                self.doors[self.model].set_requires_gradient_sync(last)
                return self.doors[self.model](loss, batch)
            with contextlib.nullcontext() if last else self.replicated.no_sync():
                return self.replicated(loss, batch)

    def evaluate(self, evaluate: Callable) -> dict[str, float]:
        """`evaluate(model)`, of the average where there is one."""
        model = self.model if self.average is None else self.average
        if not self.sharded:
            return evaluate(model)
        with self.autocast:  # the weights may have been gathered in bfloat16
            values = self.doors[model](evaluate)
        self.doors[model].reshard()
        return values

    def finished(self) -> tuple[nn.Module, nn.Module | None]:
        """The trained model and its average, both whole, on `device` and in evaluation mode."""
        if not self.sharded:
            return self.model.eval(), self.average
        model = _gather(self.model, self.whole_model)
        average = None if self.average is None else _gather(self.average, copy.deepcopy(model))
        return model.to(self.device).eval(), average and average.to(self.device).eval().requires_grad_(False)

    def _shard(self, model: nn.Module, bfloat16: bool) -> nn.Module:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # here, for one process alone need not wait for these to load

        mesh = init_device_mesh(self.device.type, (world_size(),))
        # Block by block, so that never more than a few blocks are whole at a time; what is left goes with the door.
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh, mp_policy=precision_of_shards(bfloat16, self.device))
        door = fully_shard(Door(model), mesh=mesh, mp_policy=precision_of_shards(False, self.device))
        for module in (door, *blocks_of(model)):
            # Around FSDP's own hook, in which a process waits for the weights of the others.
            module.register_forward_pre_hook(lambda *_: self.work.pause(), prepend=True)
            module.register_forward_pre_hook(lambda *_: self.work.go_on())
        return door


def precision_of_shards(bfloat16: bool, device: torch.device) -> "MixedPrecisionPolicy":
    """In what precision FSDP lets weights and gradients travel; what is computed in it, autocast decides as ever.

    Weights of blocks travel in bfloat16 to GPUs, which halves the traffic; each process keeps its share, and adds up
    gradients, in float32. (On a CPU nothing is gained, and its layer norm takes no bfloat16 gains.) Inputs are never
    cast: positions and rotary angles don't survive bfloat16.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    weights = torch.bfloat16 if bfloat16 and device.type == "cuda" else None
    return MixedPrecisionPolicy(param_dtype=weights, reduce_dtype=torch.float32, cast_forward_inputs=False)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The members of every ModuleList called `blocks`, as all models of the course call them."""
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] == "blocks"
    ]
    return [block for blocks in lists for block in blocks]


@contextlib.contextmanager
def blocks_prepared(model: nn.Module, *, recompute: bool, compile: bool) -> Iterator[None]:
    """Within this context blocks forget their inner activations and compute them again (arXiv:1604.06174), or are
    compiled one by one. Only `forward` is replaced, so that FSDP's hooks stay outside and no name changes.

    Raises ValueError when the model has no blocks.
    """
    if not (recompute or compile):
        yield
        return
    blocks = blocks_of(model)
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
            del block.forward  # the class's own shows again


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm over all gradients together; of shares, the norm of what they are shares of."""
    return whole(get_total_norm(gradients))


def mean_over_processes(values: list[Tensor]) -> list[Tensor]:
    """Each value's mean over all processes: the same numbers everywhere, so that all draw the same conclusion."""
    if world_size() == 1:
        return values
    together = torch.stack([value.detach().double().cpu() for value in values])
    distributed.all_reduce(together)
    return list(together / world_size())


def anyone(wish: str | None) -> str | None:
    """The wish of this process, or of any other."""
    if world_size() == 1:
        return wish
    wanted = torch.tensor(int(wish is not None))
    distributed.all_reduce(wanted)
    return (wish or "a signal to another process") if wanted else None


def _as_on_the_main_process(module: nn.Module) -> None:
    """Everyone begins with the main process's weights, whatever each has drawn at random."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor, 0)


def _moved_out_of(model: nn.Module) -> nn.Module:
    """A twin of `model` that has taken over the memory of its parameters; those of `model` are left empty."""
    taken = {id(parameter): nn.Parameter(parameter.data, parameter.requires_grad) for parameter in model.parameters()}
    twin = copy.deepcopy(model, taken)
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
    return twin


def _gather(shares: nn.Module, into: nn.Module) -> nn.Module:
    with torch.no_grad():
        for target, share in zip(into.parameters(), shares.parameters(), strict=True):
            target.data = whole(share.detach())
        for target, buffer in zip(into.buffers(), shares.buffers(), strict=True):
            target.copy_(buffer)
    return into
