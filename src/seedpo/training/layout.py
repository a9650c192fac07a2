"""How the trained network lies over the processes of a run: whole on each of them, or in shards (FSDP2).

In shards every process keeps an equal part of each trained weight, of its gradient and of the optimiser's state. The
weights are gathered once at the start of a step and stay whole until its last backward pass, so that nothing is
exchanged while pairs are sampled: processes whose roll-outs call the network a different number of times never wait for
one another. This is what ZeRO calls stage 2. Frozen weights stay whole on every process.

The backward pass exchanges gradients once for each call of the network in the loss, so that the last micro-batch of all
processes must have the same number of them; this is checked before, since it would hang.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from seedpo.errors import SeedpoError
from seedpo.protocols import Trainable


class Layout:
    """All weights on every process; gradients are exchanged where there are several processes.

    Args:
        policy: the trained model; its module is wrapped.
        accelerator: of this process.
    """

    def __init__(self, policy: Trainable, accelerator: Accelerator) -> None:
        self.policy = policy
        self.accelerator = accelerator

    def whole(self) -> AbstractContextManager[None]:
        """Inside, every process has all weights. Every process must enter together; nothing is exchanged inside."""
        return nullcontext()

    def accumulating(self) -> AbstractContextManager[None]:
        """Inside, a backward pass adds to the gradients of this process and exchanges nothing."""
        context: AbstractContextManager[None] = self.accelerator.no_sync(self.policy.module)
        return context

    def before_exchange(self) -> None:
        """Checks that the backward pass that exchanges gradients will not hang; every process must call it."""

    def plain(self) -> AbstractContextManager[None]:
        """Inside, state dictionaries hold whole tensors, to be written; every process must enter together."""
        return nullcontext()


class Sharded(Layout):
    """An equal part of each trained weight on every process; the module must be in shards already."""

    def __init__(self, policy: Trainable, accelerator: Accelerator) -> None:
        super().__init__(policy, accelerator)
        self.network: nn.Module = accelerator.unwrap_model(policy.module)
        self._calls = 0
        """Calls with gradient since the last backward pass."""
        self.network.register_forward_pre_hook(self._count)

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

        :meth:`whole` does not help here: FSDP2 returns to its shards when its state dictionary is read.
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


def shard(network: nn.Module, accelerator: Accelerator) -> None:
    """Cuts the trained weights of a network into one shard per process, in place.

    Weights of a checkpoint have to be loaded before: FSDP2 takes no whole tensors any more afterwards.
    The elements of module lists (a network's blocks and layers) are exchanged one by one, the rest together, so that
    the gradients of one block are reduced while those of the next are computed.
    """
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    frozen = {parameter for parameter in network.parameters() if not parameter.requires_grad}
    for parameter in network.parameters():
        if parameter.requires_grad:
            # FSDP2 refuses the layout in which the weights of convolutions are loaded, channels last.
            parameter.data = parameter.data.contiguous()
    lists = [part for part in network.modules() if isinstance(part, nn.ModuleList)]
    blocks = [block for part in lists for block in part]
    # Innermost first, as fully_shard asks: each takes the weights that no one below it has taken.
    for block in sorted(blocks, key=lambda block: sum(1 for _ in block.modules())):
        if any(parameter.requires_grad for parameter in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    fully_shard(network, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)


@contextmanager
def unwrapped(policy: Trainable, accelerator: Accelerator) -> Iterator[None]:
    """Inside, the policy's module is the network itself, for calls that only some of the processes make."""
    wrapper = policy.module
    policy.module = accelerator.unwrap_model(wrapper)
    try:
        yield
    finally:
        policy.module = wrapper


@contextmanager
def distributed(policy: Trainable, accelerator: Accelerator, *, sharded: bool = False) -> Iterator[Layout]:
    """Inside, the policy's module is on the accelerator's device, in its precision, and exchanges gradients.

    Args:
        policy: its module is wrapped, and unwrapped afterwards; a sharded one stays in shards.
        accelerator: of this process.
        sharded: whether each process keeps only its part of the trained weights.
    """
    with warnings.catch_warnings():
        # What torch 2.13 names instead of `broadcast_buffers`, torch 2.11 does not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.* is deprecated", category=FutureWarning)
        policy.module = accelerator.prepare_model(policy.module, evaluation_mode=sharded)
    try:
        if sharded:
            shard(accelerator.unwrap_model(policy.module), accelerator)
        yield Sharded(policy, accelerator) if sharded else Layout(policy, accelerator)
    finally:
        policy.module = accelerator.unwrap_model(policy.module, keep_fp32_wrapper=False)


def shard_like(value: Tensor, shards: DTensor) -> Tensor:
    """This process's shards of a whole tensor that every process has, laid out as ``shards`` are."""
    return distribute_tensor(value.to(shards.device), shards.device_mesh, shards.placements, src_data_rank=None)


def whole_tensor(value: Any) -> Any:
    """A tensor's shards joined (every process must ask together); anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value
