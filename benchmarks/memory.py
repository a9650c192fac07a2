"""Bytes that a piece of work needs at its peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], networks: Sequence[nn.Module]) -> int:
    """Weights of the networks and the most that is allocated beside them while the work is done.

    The allocator's own count, from torch's profiler: every block that is asked for and given back inside, so
    activations, gradients and what kernels need in between, but no code, and no memory that the allocator keeps
    for later.

    Args:
        work: what is done.
        networks: what has to be on the device for it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    recorder = profiler.profiler
    assert recorder is not None
    events = [event for event in recorder.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak + sum(weight_bytes(network) for network in networks)


def weight_bytes(network: nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
