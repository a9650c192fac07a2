"""How the trained network lies over the processes of a run: whole on each of them, or in shards (FSDP2).

In shards every process keeps an equal part of each trained weight, of its gradient and of the optimiser's state. The
weights are gathered once at the start of a step and stay whole until its last backward pass, so that nothing is
exchanged while pairs are sampled: processes whose roll-outs call the network a different number of times never wait for
one another. This is what ZeRO calls stage 2. Frozen weights stay whole on every process.

The backward pass exchanges gradients once for each call of the network in the loss, so that the last micro-batch of all
processes must have the same number of them; this is checked before, since it would hang.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from seedpo.errors import SeedpoError
from seedpo.protocols import Trainable


class Layout(Protocol):
    """What the loop asks of either way to lay out a network."""

    def whole(self) -> AbstractContextManager[None]:
        """Inside, every process has all weights. Every process must enter together; nothing is exchanged inside."""

    def accumulating(self) -> AbstractContextManager[None]:
        """Inside, a backward pass adds to the gradients of this process and exchanges nothing."""

    def before_exchange(self) -> None:
        """Checks that the backward pass that exchanges gradients will not hang; every process must call it."""

    def plain(self) -> AbstractContextManager[None]:
        """Inside, state dictionaries hold whole tensors, to be written; every process must enter together."""


@dataclass(frozen=True, kw_only=True)
class Replicated:
    """All weights on every process; gradients are exchanged where there are several."""

    policy: Trainable
    accelerator: Accelerator

    def whole(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    def accumulating(self) -> AbstractContextManager[None]:
        """Leaves out the exchange of gradients."""
        context: AbstractContextManager[None] = self.accelerator.no_sync(self.policy.module)
        return context

    def before_exchange(self) -> None:
        """Nothing to do: gradients are exchanged once, whatever they come from."""

    def plain(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()


class Sharded:
    """An equal part of each trained weight on every process.

    Args:
        network: the network, in shards.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._calls = 0
        """Calls with gradient since the last backward pass."""
        network.register_forward_pre_hook(self._count)

    def _count(self, module: nn.Module, arguments: Any) -> None:
        self._calls += torch.is_grad_enabled()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gathers all shards; afterwards each process keeps its own."""
        self._calls = 0
        for part in self._parts():
            part.unshard()
        try:
            yield
        finally:
            for part in self._parts():
                part.reshard()

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Gradients stay whole and local until the first backward pass outside."""
        self._synchronise(False)
        try:
            yield
        finally:
            self._synchronise(True)
            self._calls = 0

    def before_exchange(self) -> None:
        """Checks that all processes called the network equally often.

        Raises:
            SeedpoError: on every process, if they did not.
        """
        calls: list[int] = gather_object([self._calls])
        if len(set(calls)) > 1:
            error = SeedpoError(
                f"the method calls the network {calls} times on the processes of one step, which training in shards "
                "cannot do; leave --shard (or the FSDP2 file) out"
            )
            error.on_every_process = True
            raise error

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Puts whole copies in the place of the shards.

        :meth:`whole` does not serve for this: asked for its state dictionary, FSDP2 goes back to its shards.
        """
        places = [
            (module, name, parameter)
            for module in self.network.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if isinstance(parameter, DTensor)
        ]
        copies = {shards: nn.Parameter(shards.full_tensor()) for _, _, shards in places}
        for module, name, shards in places:
            setattr(module, name, copies[shards])
        try:
            yield
        finally:
            for module, name, shards in places:
                setattr(module, name, shards)

    def _synchronise(self, wanted: bool) -> None:
        for part in self._parts():
            part.set_requires_gradient_sync(wanted, recurse=False)
            part.set_reshard_after_backward(wanted, recurse=False)

    def _parts(self) -> list[FSDPModule]:
        return [part for part in self.network.modules() if isinstance(part, FSDPModule)]


def shard(network: nn.Module, accelerator: Accelerator) -> Sharded:
    """Cuts the trained weights of a network into one shard per process, in place.

    Weights of a checkpoint have to be loaded before: FSDP2 takes no whole tensors any more afterwards.
    The elements of module lists (a network's blocks and layers) are exchanged one by one, the rest together, so that
    the gradients of one block are reduced while those of the next are computed.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    frozen = {parameter for parameter in network.parameters() if not parameter.requires_grad}
    lists = [part for part in network.modules() if isinstance(part, nn.ModuleList)]
    blocks = [block for part in lists for block in part]
    # Innermost first, as fully_shard asks: each takes the weights that no one below it has taken.
    for block in sorted(blocks, key=lambda block: sum(1 for _ in block.modules())):
        if any(parameter.requires_grad for parameter in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    fully_shard(network, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    return Sharded(network)


def shard_like(value: Tensor, shards: DTensor) -> Tensor:
    """This process's shards of a whole tensor that every process has, laid out as ``shards`` are."""
    return distribute_tensor(value.to(shards.device), shards.device_mesh, shards.placements, src_data_rank=None)


def whole_tensor(value: Any) -> Any:
    """A tensor's shards joined (every process must ask together); anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value
